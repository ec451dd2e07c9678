// SPDX-License-Identifier: Apache-2.0

import KeyValue

/// What clients asked and heard. Every write has a value of its own, counted from 1; 0 stands for "never written".
struct History {
    struct Operation: CustomStringConvertible {
        enum Outcome { case ok, notApplied, unknown }

        let id: Int
        let key: Int
        let isWrite: Bool
        /// What was written or, once it is answered, read.
        var value: Int
        let call: Int
        var end: Int?
        var outcome: Outcome?
        var version: Version?
        /// Of a conditional write: what it is to replace.
        var expected: Seen?
        let place: String

        var description: String {
            let what = isWrite ? "write" : "read "
            let heard = outcome.map { "\($0)" } ?? "nothing"
            return "\(what) key \(key) value \(value) \(call)…\(end.map(String.init) ?? "") \(heard) at \(place)"
                + (version.map { " version \($0)" } ?? "")
        }
    }

    /// A pair as a client saw it.
    struct Seen {
        let value: Int
        let version: Version
    }

    /// What a listing said of a key: its version, or that there is none.
    struct Listed {
        let key: Int
        let version: Version?
        let call: Int
        let end: Int
    }

    private(set) var operations: [Operation] = []
    private(set) var listings: [Listed] = []
    /// Values whose writes were deletions.
    private var deletions: Set<Int> = []
    private var writes = 0

    /// Times at which the only copy of a key's newest value died with its memory: after each, older values may come
    /// back.
    private(set) var losses: [Int: [Int]] = [:]

    mutating func beganRead(_ key: Int, at time: Int, _ place: String) -> Int {
        operations.append(
            Operation(id: operations.count, key: key, isWrite: false, value: 0, call: time, place: place))
        return operations.count - 1
    }

    mutating func beganWrite(
        _ key: Int, over expected: Seen? = nil, at time: Int, _ place: String
    ) -> (id: Int, value: Int) {
        writes += 1
        operations.append(
            Operation(
                id: operations.count, key: key, isWrite: true, value: writes, call: time, expected: expected,
                place: place))
        return (operations.count - 1, writes)
    }

    mutating func ended(
        _ id: Int, at time: Int, _ outcome: Operation.Outcome, value: Int? = nil, version: Version? = nil
    ) {
        guard operations[id].end == nil else { return }
        operations[id].end = time
        operations[id].outcome = outcome
        if let value { operations[id].value = value }
        operations[id].version = version
    }

    mutating func deletes(_ value: Int) { deletions.insert(value) }

    mutating func listed(_ key: Int, _ version: Version?, from call: Int, to end: Int) {
        listings.append(Listed(key: key, version: version, call: call, end: end))
    }

    /// What is wrong with what listings said of a key; nil where nothing is. What was acknowledged before a listing
    /// began is in it, or something newer is, or was deleted by a write that began before the listing's end.
    func wrongListing(of key: Int) -> String? {
        let writes = operations.filter { $0.key == key && $0.isWrite && $0.outcome != .notApplied }
        for listing in listings where listing.key == key {
            // (A loss that is excused: what was acknowledged before it may be gone.)
            if (losses[key] ?? []).contains(where: { $0 <= listing.end }) { continue }
            let settled = writes.filter { $0.outcome == .ok && ($0.end ?? .max) <= listing.call && $0.version != nil }
            guard let newest = settled.max(by: { ($0.version ?? .none) < ($1.version ?? .none) }),
                let least = newest.version
            else { continue }
            if let version = listing.version {
                if version < least { return "a listing \(listing) shows what \(newest) had overwritten" }
                if version == least, deletions.contains(newest.value) {
                    return "a listing \(listing) shows what \(newest) had deleted"
                }
            } else if !deletions.contains(newest.value) {
                let mayBeDeleted = writes.contains { write in
                    deletions.contains(write.value) && write.call < listing.end
                        && (write.version.map { $0 > least } ?? true)
                }
                if !mayBeDeleted { return "a listing \(listing) lacks what \(newest) had stored" }
            }
        }
        return nil
    }

    /// The newest of what clients have seen of the key.
    func latest(of key: Int) -> Seen? {
        operations.last { $0.key == key && $0.outcome == .ok && $0.version != nil }.flatMap { seen in
            seen.version.map { Seen(value: seen.value, version: $0) }
        }
    }

    mutating func lost(_ key: Int, at time: Int) { losses[key, default: []].append(time) }

    /// One key's history as the checkers want it, cut where a loss is excused: after it, all that was settled before
    /// counts as never written.
    func lives(of key: Int) -> [[Call]] {
        let all = operations.filter { $0.key == key }
        let cuts = (losses[key] ?? []).sorted()
        var lives: [[Call]] = []
        for (index, start) in ([Int.min] + cuts).enumerated() {
            let end = index < cuts.count ? cuts[index] : Int.max
            let seenBefore = Set(
                all.filter { !$0.isWrite && $0.outcome == .ok && ($0.end ?? .max) <= start }.map(\.value))
            var calls: [Call] = []
            var forgotten: Set<Int> = []
            for operation in all where operation.isWrite && operation.call < end {
                // What was under way when the memory died may have died with it, though it was acknowledged.
                let isAcknowledged =
                    operation.outcome == .ok && (operation.end ?? .max) <= end && operation.call >= start
                let isRefused = operation.outcome == .notApplied
                if operation.call < start {
                    let isSettled = operation.outcome == .ok && (operation.end ?? .max) <= start
                    if isSettled || seenBefore.contains(operation.value) {
                        forgotten.insert(operation.value)
                        continue
                    }
                }
                calls.append(
                    Call(
                        isWrite: true, value: operation.value, call: operation.call,
                        end: isAcknowledged ? operation.end : nil, isRefused: isRefused,
                        version: isAcknowledged ? operation.version : nil,
                        over: isAcknowledged ? operation.expected?.version : nil))
                // It has read what it replaced.
                if isAcknowledged, let expected = operation.expected {
                    let isForgotten = forgotten.contains(expected.value)
                    calls.append(
                        Call(
                            isWrite: false, value: isForgotten ? 0 : expected.value, call: operation.call,
                            end: operation.end, version: isForgotten ? nil : expected.version))
                }
            }
            for operation in all where !operation.isWrite && operation.outcome == .ok && operation.call >= start {
                guard let returned = operation.end, returned <= end else { continue }
                let isForgotten = forgotten.contains(operation.value)
                calls.append(
                    Call(
                        isWrite: false, value: isForgotten ? 0 : operation.value, call: operation.call, end: returned,
                        version: isForgotten ? nil : operation.version))
            }
            lives.append(calls)
        }
        return lives
    }
}

/// One operation on one key, for the checkers.
struct Call: Hashable {
    var isWrite: Bool
    var value: Int
    var call: Int
    /// Nil for a write whose outcome is unknown: it may take effect at any time after its call, or never.
    var end: Int?
    /// A write that was said not to be applied: nobody may read it.
    var isRefused = false
    var version: Version?
    /// Of a conditional write: the version right before it.
    var over: Version?
}
