// SPDX-License-Identifier: Apache-2.0

import KeyValue
import NIOCore
import Testing

struct VersionTests {
    @Test(arguments: 0..<10)
    func textOrdersAsVersionsDo(seed: UInt64) {
        var random = SeededBytes(seed)
        let versions = (0..<200).map { _ in
            Version(
                time: random.next() >> UInt64.random(in: 0..<64, using: &random),
                writer: UInt32(truncatingIfNeeded: random.next()))
        }
        #expect(versions.sorted().map(\.description) == versions.map(\.description).sorted())
        #expect(versions.allSatisfy { $0.description.utf8.count == 24 && $0 > .none })
    }

    /// Whatever the wall clock does, and whatever others say: each version is newer than the one before and than what
    /// it follows.
    @Test(arguments: 0..<20)
    func aClockNeverGoesBack(seed: UInt64) {
        var random = SeededBytes(seed)
        var clock = HybridClock(writer: 3)
        var wall: UInt64 = 1_800_000_000_000_000
        var last = Version.none
        for _ in 0..<2000 {
            switch Int.random(in: 0..<5, using: &random) {
            case 0: wall -= UInt64.random(in: 0...5_000_000, using: &random)
            case 1: wall += UInt64.random(in: 0...5_000_000, using: &random)
            case 2:
                _ = clock.merge(
                    (wall + UInt64.random(in: 0...20_000_000, using: &random)) << 12, wallMicroseconds: wall)
            default: break
            }
            let other = Version(time: last.time + UInt64.random(in: 0...3, using: &random), writer: .max)
            let version = clock.tick(wallMicroseconds: wall, after: Bool.random(using: &random) ? other : .none)
            #expect(version > last && version.writer == 3 && version.time == clock.last)
            #expect(version.time >= wall << 12)
            last = version
        }
    }

    @Test func tickFollowsWhatItIsTold() {
        var clock = HybridClock(writer: 1)
        let other = Version(time: 99 << 12, writer: .max)
        #expect(clock.tick(wallMicroseconds: 5, after: other) > other)
        #expect(clock.tick(wallMicroseconds: 5).microseconds == 99)
        #expect(clock.tick(wallMicroseconds: 100) == Version(time: 100 << 12, writer: 1))
    }

    @Test(
        arguments: [(0, true), (9_999_999, true), (10_000_000, true), (10_000_001, false), (3_600_000_000, false)]
            as [(UInt64, Bool)])
    func whatIsTooFarAheadIsNotTaken(_ microseconds: UInt64, _ isTaken: Bool) {
        var clock = HybridClock(writer: 1)
        let wall: UInt64 = 1_800_000_000_000_000
        _ = clock.tick(wallMicroseconds: wall - 1)
        let before = clock.last
        let time = (wall + microseconds) << 12
        #expect(clock.merge(time, wallMicroseconds: wall) == isTaken)
        #expect(clock.last == (isTaken ? time : before))
    }

    @Test(arguments: [(5, 4, true), (5, 5, false), (5, 6, false), (0, 0, false)] as [(UInt64, UInt64, Bool)])
    func onlyWhatIsNewerIsStored(_ offered: UInt64, _ held: UInt64, _ isStored: Bool) throws {
        let key = try #require(Key("k"))
        let envelope = Envelope(
            key: key, storedKey: StoredKey(key), value: ByteBuffer(), version: Version(time: offered, writer: 0))
        let held = Version(time: held, writer: 0)
        #expect(Apply.fixed(envelope, over: held) == (isStored ? .store(envelope) : .keep(newest: held)))
    }

    @Test func clockStandsAtTheEndOfTime() {
        var clock = HybridClock(writer: 1)
        #expect(clock.tick(wallMicroseconds: 1, after: Version(time: .max - 1, writer: 2)).time == .max)
        #expect(clock.tick(wallMicroseconds: 1, after: Version(time: .max, writer: 2)).time == .max)
        #expect(clock.tick(wallMicroseconds: 1).time == .max)
    }
}
