// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import Memcached

/// Where the workers of a host tell each other about a ring change: two control keys in memcached, "how far it is" and
/// "this is what an operator wants of it". Losing them loses nothing but a number on `/status`, or a wish that is made
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
    private static let wishKey = "wish"
    private static let mostWishes = 64

    private let control: ControlStore

    package init(control: ControlStore) { self.control = control }

    package func show(_ entry: Entry) async { _ = try? await control.show(ChangeBoard.entryKey, entry) }

    package func entry() async -> Entry? { await control.shown(ChangeBoard.entryKey) }

    /// Beside what is wanted of the same change already: that a node is gone for good stays true.
    package func leave(_ wish: PeerMessage.ChangeWish) async throws {
        let left = try await control.change(ChangeBoard.wishKey, Wishes.self) { held in
            var wishes = held?.changeID == wish.changeID ? held : nil
            if wishes?.wants.contains(wish.want) == true { return wishes }
            wishes = Wishes(changeID: wish.changeID, wants: (wishes?.wants ?? []) + [wish.want])
            return wishes.flatMap { $0.wants.count <= ChangeBoard.mostWishes ? $0 : nil }
        }
        guard left != nil else { throw RingKeeper.Failure.contended }
    }

    /// In the order in which they came.
    package func wishes(for changeID: String) async -> [PeerMessage.ChangeWish.Want] {
        let wishes: Wishes? = await control.shown(ChangeBoard.wishKey)
        return wishes?.changeID == changeID ? wishes?.wants ?? [] : []
    }

    private struct Wishes: Codable {
        let changeID: String
        var wants: [PeerMessage.ChangeWish.Want]
    }
}
