// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
package import HashRing
package import Memcached

/// Where the workers of a host tell each other about a ring change: two control keys in memcached, "how far it is" and
/// "somebody wishes it aborted". Losing them loses nothing but a number on `/status`, or an abort that is asked for
/// again.
package struct ChangeBoard: Sendable {
    package struct Entry: Codable, Sendable {
        package struct Job: Codable, Sendable {
            package let node: NodeID
            package let job: JobProgress
        }

        package let changeID: String
        package let progress: [Job]
    }

    private static let entryKey = "change"
    private static let wishKey = "abort"

    private let control: ControlStore

    package init(control: ControlStore) { self.control = control }

    package func show(_ entry: Entry) async { _ = try? await put(ChangeBoard.entryKey, entry) }

    package func entry() async -> Entry? { await get(ChangeBoard.entryKey) }

    package func wish(_ request: PeerMessage.AbortRequest) async throws {
        guard try await put(ChangeBoard.wishKey, request) else { throw RingKeeper.Failure.contended }
    }

    package func wish(for changeID: String) async -> String? {
        let request: PeerMessage.AbortRequest? = await get(ChangeBoard.wishKey)
        return request?.changeID == changeID ? request?.reason : nil
    }

    private func get<Value: Decodable>(_ key: String) async -> Value? {
        guard let value = try? await control.get(key) else { return nil }
        return try? JSONDecoder().decode(Value.self, from: Data(value.bytes))
    }

    /// - Returns: false where others changed the key again and again.
    private func put(_ key: String, _ value: some Encodable) async throws -> Bool {
        let bytes = Array(try JSONEncoder().encode(value))
        for _ in 0..<8 {
            if let held = try await control.get(key) {
                if case .stored = try await control.compareAndSwap(key, bytes, token: held.token) { return true }
            } else if try await control.add(key, bytes) {
                return true
            }
        }
        return false
    }
}
