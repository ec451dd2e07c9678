// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
internal import Memcached

/// Small values that the workers of a host show each other, as JSON. Losing one loses nothing but what is shown.
extension ControlStore {
    private static let changeTries = 16

    /// Nil where there is none, or it can't be read.
    func shown<Value: Decodable>(_ name: String, as type: Value.Type = Value.self) async -> Value? {
        guard let value = try? await get(name) else { return nil }
        return try? JSONDecoder().decode(type, from: Data(value.bytes))
    }

    /// - Returns: false where others changed the key again and again.
    func show(_ name: String, _ value: some Codable & Sendable) async throws -> Bool {
        try await change(name) { _ in value } != nil
    }

    /// - Parameter change: gets what is held, if it can be read; nil: it is to stay what it is.
    /// - Returns: what it is now; nil where it was to stay what it is, or others changed the key again and again.
    func change<Value: Codable>(
        _ name: String, _ type: Value.Type = Value.self, _ change: @Sendable (Value?) -> Value?
    ) async throws -> Value? {
        for _ in 0..<ControlStore.changeTries {
            let held = try await get(name)
            let before = held.flatMap { try? JSONDecoder().decode(type, from: Data($0.bytes)) }
            guard let after = change(before) else { return nil }
            let bytes = Array(try JSONEncoder().encode(after))
            if let held {
                if case .stored = try await compareAndSwap(name, bytes, token: held.token) { return after }
            } else if try await add(name, bytes) {
                return after
            }
        }
        return nil
    }
}
