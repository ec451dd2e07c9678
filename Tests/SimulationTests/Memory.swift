// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue

/// What a memcached says of itself to every batch: the epoch of its host's document, and which life of the memory it
/// is.
struct Stamp: Hashable {
    var epoch: Epoch
    let generation: Generation
    var isRecovering = false
}

/// One life of a host's memcached.
final class Memory {
    struct Item {
        let envelope: Envelope
        let token: Int
    }

    struct Registration {
        let process: Int
        let drained: Epoch
    }

    struct JobRecord {
        let changeID: String
        let kind: JobKind
        let epoch: Epoch
        let generation: Generation
        let run: String
        var isRunning = true
        var failedAt: Int?
        var report: RingTransitionStateMachine.JobReport?
        var beat: Int
        var checkpoint: (slot: UInt16, gainers: [RingTransition.Fence])?
        var copied: Copied?
    }

    /// See `JobWork.Copied`.
    struct Copied {
        let through: Int
        var gainers: [RingTransition.Fence] = []
    }

    var stamp: Stamp?
    var record: HostRingRecord?
    var pairs: [StoredKey: Item] = [:]
    var registry: [Int: Registration] = [:]
    /// By kind, and by target where it is a repair.
    var jobs: [String: JobRecord] = [:]
    /// Of a memory that is recovering: when it began to.
    var recoveryBegan: Int?
    var wish: (changeID: String, want: PeerMessage.ChangeWish.Want)?
    var choresLease: (process: Int, until: Int)?
    /// Stored by a write that had been given up when the ring moved on: after the clean-up, nobody looks for these.
    var stray: Set<StoredKey> = []
    private(set) var tokens = 0

    /// `cas`, or `add` where no token is given.
    /// - Returns: whether it was stored.
    func store(_ envelope: Envelope, under key: StoredKey, token: Int?) -> Bool {
        guard pairs[key]?.token == token else { return false }
        tokens += 1
        pairs[key] = Item(envelope: envelope, token: tokens)
        return true
    }
}
