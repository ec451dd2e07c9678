// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import Memcached
import NIOCore
import Synchronization
import TestSupport
import Testing

/// A log that keeps what it gets, and refuses when it is told to.
final class RecordingLog: StoredLog {
    private struct State {
        var records: [SnapshotRecord] = []
        var reserved = 0
        var isFull = false
    }

    private let state = Mutex(State())

    var records: [SnapshotRecord] { state.withLock { $0.records } }
    /// What was reserved and not given back.
    var reserved: Int { state.withLock { $0.reserved } }

    func refuse(_ isFull: Bool) { state.withLock { $0.isFull = isFull } }

    func reserve(_ bytes: Int) -> Bool {
        state.withLock { state in
            if state.isFull { return false }
            state.reserved += bytes
            return true
        }
    }

    func append(_ records: [SnapshotRecord], under stamp: HostStamp, reserved bytes: Int) {
        #expect(stamp == Rig.stamp)
        #expect(records.reduce(0) { $0 + $1.bytes } <= bytes)
        state.withLock { state in
            state.records += records
            state.reserved -= bytes
        }
    }
}

extension MemcachedTests {
    @Suite struct LoggedWrites {
        private static func version(_ time: UInt64) -> Version { Version(time: time, writer: 7) }

        @Test func whatIsStoredIsLoggedAsItIsStored() async throws {
            try await RealMemcached.run { memcached in
                let log = RecordingLog()
                try await Rig.run(at: memcached.path, log: log) { rig in
                    let pairs = Pair.numbered(0..<4)
                    let outcomes = await rig.perform([
                        .stamp(pairs[0].key, pairs[0].envelope("stamped")),
                        .apply(pairs[1].key, pairs[1].envelope("applied", version: LoggedWrites.version(5))),
                        .replace(
                            pairs[2].key, pairs[2].envelope("replaced", version: LoggedWrites.version(6)),
                            over: .none),
                        .apply(
                            pairs[3].key,
                            pairs[3].envelope(version: LoggedWrites.version(7), isTombstone: true)),
                        .read(pairs[0].key),
                    ])
                    #expect(outcomes.allSatisfy { !$0.isFailure })
                    #expect(log.records.map(\.key) == pairs.map(\.key) && log.reserved == 0)
                    for (record, pair) in zip(log.records, pairs) {
                        #expect(await rig.held(pair) == record.envelope)
                    }
                    // What is not stored is not logged.
                    let kept = await rig.perform([
                        .apply(pairs[1].key, pairs[1].envelope("older", version: LoggedWrites.version(4))),
                        .replace(
                            pairs[2].key, pairs[2].envelope("again", version: LoggedWrites.version(6)), over: .none),
                    ])
                    #expect(kept[0] == .applied(newest: LoggedWrites.version(5)) && kept[1].isFailure)
                    #expect(log.records.count == 4 && log.reserved == 0)
                }
            }
        }

        @Test func hintsAndWhatComesFromTheDiskAreNotLogged() async throws {
            try await RealMemcached.run { memcached in
                let log = RecordingLog()
                try await Rig.run(at: memcached.path, log: log) { rig in
                    let pairs = Pair.numbered(0..<3)
                    let hint = Operation.apply(
                        pairs[0].key.hint, pairs[0].envelope(version: LoggedWrites.version(5)))
                    #expect(await rig.perform(hint) == .applied(newest: LoggedWrites.version(5)))
                    // Also where the log is full.
                    for (pair, isFull) in [(pairs[1], false), (pairs[2], true)] {
                        log.refuse(isFull)
                        let operation = Operation.apply(
                            pair.key, pair.envelope(version: LoggedWrites.version(5)))
                        let result = await rig.result(of: [operation], isFromDisk: true)
                        #expect(result.outcomes == [.applied(newest: LoggedWrites.version(5))])
                    }
                    #expect(log.records == [] && log.reserved == 0)
                }
            }
        }

        @Test func whatCantBeLoggedIsNotStored() async throws {
            try await RealMemcached.run { memcached in
                let log = RecordingLog()
                try await Rig.run(at: memcached.path, log: log) { rig in
                    let (old, new) = (Pair("old"), Pair("new"))
                    #expect(await rig.perform(.stamp(old.key, old.envelope("1"))).storedVersion != nil)
                    let held = try #require(await rig.held(old))
                    log.refuse(true)
                    let outcomes = await rig.perform([
                        .stamp(old.key, old.envelope("2")), .stamp(new.key, new.envelope("2")), .read(old.key),
                    ])
                    #expect(outcomes[0] == .failed(.notApplied(.logFailed)) && outcomes[1] == outcomes[0])
                    #expect(outcomes[2].record == held)
                    #expect(await rig.held(old) == held)
                    #expect(await rig.held(new) == nil)
                    log.refuse(false)
                    #expect(await rig.perform(.stamp(old.key, old.envelope("2"))).storedVersion != nil)
                    #expect(log.records.count == 2)
                }
            }
        }

        /// It may be stored, and another one may be acknowledged for that reason.
        @Test(arguments: [true, false])
        func aWriteInDoubtIsLoggedUnlessItRestsOnACondition(isPerformed: Bool) async throws {
            try await FakeMemcached.run { fake in
                fake.put("kv:stamp", Rig.stamp.bytes)
                let log = RecordingLog()
                try await Rig.run(at: fake.path, isStamped: false, log: log) { rig in
                    let pairs = Pair.numbered(0..<3)
                    fake.inject(FakeFault(.silence, on: "add", isPerformed: isPerformed))
                    let outcomes = await rig.perform(
                        [
                            .stamp(pairs[0].key, pairs[0].envelope("new")),
                            .apply(pairs[1].key, pairs[1].envelope("new", version: LoggedWrites.version(5))),
                            .replace(
                                pairs[2].key, pairs[2].envelope("new", version: LoggedWrites.version(6)),
                                over: .none),
                        ], within: .milliseconds(300))
                    #expect(outcomes.allSatisfy { $0.isUnknown }, "\(outcomes)")
                    #expect(log.records.map(\.key) == [pairs[0].key, pairs[1].key] && log.reserved == 0)
                }
            }
        }

        @Test func whatIsStoredAfterALostRaceIsLogged() async throws {
            try await RealMemcached.run { memcached in
                let logs = [RecordingLog(), RecordingLog()]
                let pair = Pair("hot")
                try await Rig.run(at: memcached.path, writer: 1, log: logs[0]) { one in
                    try await Rig.run(at: memcached.path, writer: 2, log: logs[1]) { two in
                        let versions = await withTaskGroup(of: [Version].self) { group in
                            for (rig, count) in [(one, 4), (two, 4)] {
                                for client in 0..<count {
                                    group.addTask {
                                        var versions: [Version] = []
                                        for round in 0..<100 {
                                            let outcome = await rig.perform(
                                                .stamp(pair.key, pair.envelope("\(client):\(round)")),
                                                within: .seconds(10))
                                            if let version = outcome.storedVersion { versions.append(version) }
                                        }
                                        return versions
                                    }
                                }
                            }
                            return await group.reduce(into: []) { $0 += $1 }
                        }
                        let logged = logs.flatMap { $0.records.map(\.envelope.version) }
                        #expect(Set(logged) == Set(versions) && logged.count == versions.count)
                        #expect(logs.allSatisfy { $0.reserved == 0 })
                        let lost = try memcached.connect().statistic("cas_badval")
                        #expect(lost > 0, "no race was lost")
                    }
                }
            }
        }
    }
}
