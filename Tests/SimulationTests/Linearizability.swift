// SPDX-License-Identifier: Apache-2.0

import KeyValue

/// Whether one key's history could have come from a single register: three ways to find out.
///
/// `zones` is exact where every write has its own value (Gibbons and Korach 1997; Golab, Li and Shah 2011); `versions`
/// takes the versions' word for the order, so passing it proves the same; `search` tries every order and is for small
/// histories.
enum Linearizability {
    /// - Returns: what is wrong; nil where nothing is.
    static func zones(_ calls: [Call]) -> String? {
        struct Cluster {
            var firstEnd: Int
            var lastCall: Int
            let writeCall: Int
            let isRefused: Bool
            var reads = 0
        }
        var clusters: [Int: Cluster] = [
            0: Cluster(firstEnd: .min, lastCall: .min, writeCall: .min, isRefused: false)
        ]
        for write in calls where write.isWrite {
            clusters[write.value] = Cluster(
                firstEnd: write.isRefused ? .max : write.end ?? .max, lastCall: write.call, writeCall: write.call,
                isRefused: write.isRefused)
        }
        for read in calls where !read.isWrite {
            guard let end = read.end else { continue }
            guard var cluster = clusters[read.value] else { return "value \(read.value) was read and never written" }
            if cluster.isRefused { return "value \(read.value) was refused and read" }
            if end < cluster.writeCall { return "value \(read.value) was read before it was written" }
            cluster.firstEnd = min(cluster.firstEnd, end)
            cluster.lastCall = max(cluster.lastCall, read.call)
            cluster.reads += 1
            clusters[read.value] = cluster
        }
        var forward: [(low: Int, high: Int, value: Int)] = []
        var backward: [(low: Int, high: Int, value: Int)] = []
        for (value, cluster) in clusters {
            if cluster.reads == 0, cluster.firstEnd == .max { continue }
            if cluster.firstEnd < cluster.lastCall {
                forward.append((cluster.firstEnd, cluster.lastCall, value))
            } else {
                backward.append((cluster.lastCall, cluster.firstEnd, value))
            }
        }
        forward.sort { $0.low < $1.low }
        for (left, right) in zip(forward, forward.dropFirst()) where left.high > right.low {
            return "value \(left.value) was read after value \(right.value) had replaced it, or the other way round"
        }
        for zone in backward {
            for other in forward where other.low < zone.low && zone.high < other.high {
                return "value \(zone.value) came and went while value \(other.value) stood"
            }
        }
        return nil
    }

    /// - Returns: what is wrong with the versions' order; nil where nothing is.
    static func versions(_ calls: [Call]) -> String? {
        var versionOf: [Int: Version] = [:]
        for call in calls {
            guard let version = call.version else { continue }
            if let known = versionOf.updateValue(version, forKey: call.value), known != version {
                return "value \(call.value) has two versions"
            }
        }
        // By time: the newest version that had been answered when each operation was called.
        let ended = calls.filter { $0.end != nil && ($0.version != nil || !$0.isWrite) }.sorted {
            ($0.end ?? 0) < ($1.end ?? 0)
        }
        var newest = Version.none
        var next = 0
        for call in calls.sorted(by: { $0.call < $1.call }) {
            while next < ended.count, let end = ended[next].end, end < call.call {
                newest = max(newest, ended[next].version ?? .none)
                next += 1
            }
            // What a loss made count as never written has no version to compare.
            guard let version = call.version ?? versionOf[call.value] ?? (call.value == 0 ? Version.none : nil) else {
                continue
            }
            if call.isWrite ? version <= newest : version < newest {
                return "value \(call.value) is older than what had been answered before it was asked"
            }
        }
        return nil
    }

    /// - Returns: which write lies between a conditional one and what that replaced; nil where none does.
    static func conditions(_ calls: [Call]) -> String? {
        let writes = calls.filter { $0.isWrite && $0.version != nil }
        for call in writes {
            guard let over = call.over, let version = call.version else { continue }
            for other in writes where over < other.version ?? .none && other.version ?? version < version {
                return "value \(other.value) lies between value \(call.value) and what that was to replace"
            }
            if writes.contains(where: { $0.value != call.value && $0.version == version }) {
                return "value \(call.value) has the version of another one"
            }
        }
        return nil
    }

    /// By trying all orders; for a dozen operations.
    static func search(_ calls: [Call]) -> Bool {
        let calls = calls.filter { $0.isWrite || $0.end != nil }
        var dead: Set<State> = []
        func go(_ state: State) -> Bool {
            let left = calls.indices.filter { state.done & (1 << UInt64($0)) == 0 }
            let must = left.filter { calls[$0].end != nil && !calls[$0].isRefused }
            if must.isEmpty { return true }
            if dead.contains(state) { return false }
            let limit = must.map { calls[$0].end ?? .max }.min() ?? .max
            for index in left where calls[index].call <= limit && !calls[index].isRefused {
                let call = calls[index]
                if !call.isWrite, call.value != state.value { continue }
                if go(State(done: state.done | 1 << UInt64(index), value: call.value)) { return true }
            }
            dead.insert(state)
            return false
        }
        return go(State(done: 0, value: 0))
    }

    private struct State: Hashable {
        let done: UInt64
        let value: Int
    }
}
