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

    @Test(arguments: 0..<10)
    func textReadsBack(seed: UInt64) {
        var random = SeededBytes(seed)
        for _ in 0..<200 {
            let version = EnvelopeTests.version(&random)
            #expect(Version(version.description.utf8) == version)
            var text = Array(version.description.utf8)
            text[Int.random(in: 0..<24, using: &random)] = [0x2F, 0x3A, 0x41, 0x46, 0x60, 0x67, 0].randomElement(
                using: &random)!
            #expect(Version(text) == nil)
            #expect(Version(text.dropLast()) == nil && Version(text + [0x30]) == nil)
        }
    }

    /// A write that was under way when a conditional one was decided is either older than what that has replaced, or
    /// newer than the conditional one.
    @Test(arguments: 0..<20)
    func noClockGetsBetweenAVersionAndItsSuccessor(seed: UInt64) {
        var random = SeededBytes(seed)
        var wall: UInt64 = 1_800_000_000_000_000
        var clocks = (1...3).map { _ in HybridClock(writer: UInt32(truncatingIfNeeded: random.next())) }
        var newest = Version.none
        var given: [Version] = []
        var gaps: [(low: Version, high: Version)] = []
        for _ in 0..<500 {
            wall += UInt64.random(in: 0...3, using: &random)
            let clock = Int.random(in: 0..<3, using: &random)
            let skewed = wall + UInt64(clock) * 4_000_000
            switch Int.random(in: 0..<3, using: &random) {
            case 0: given.append(clocks[clock].tick(wallMicroseconds: skewed))
            case 1: given.append(clocks[clock].tick(wallMicroseconds: skewed, after: newest))
            default:
                guard newest != .none else { continue }
                let next = newest.successor(by: .random(in: 1...Limits.successorSteps, using: &random))
                gaps.append((newest, next))
                given.append(next)
            }
            newest = given.max() ?? .none
        }
        #expect(gaps.count > 50)
        for gap in gaps {
            #expect(gap.low < gap.high)
            #expect(!given.contains { gap.low < $0 && $0 < gap.high })
        }
    }

    @Test func successorsOfTheLastWriterAreNewer() {
        let last = Version(time: 7, writer: .max)
        #expect(last.successor(by: 1) == Version(time: 8, writer: 0))
        #expect(last.successor(by: 1) < last.successor(by: 2))
        #expect(Version(time: 7, writer: 5).successor(by: 1) == Version(time: 7, writer: 6))
    }

    @Test func whatWasNotThereBeginsBehindOtherClocks() {
        var clock = HybridClock(writer: 9)
        let wall: UInt64 = 1_800_000_000_000_000
        let early = clock.early(wallMicroseconds: wall)
        #expect(early.microseconds == wall - UInt64(Limits.createdEarlyMilliseconds) * 1000)
        #expect(early.writer != 9 && early != clock.early(wallMicroseconds: wall))
        #expect(clock.early(wallMicroseconds: 3) > .none)
        #expect(Limits.createdEarlyMilliseconds < Limits.expiredSeconds * 1000)
        #expect(Limits.createdEarlyMilliseconds > Limits.clockAheadMilliseconds)
    }

    /// What some host stamped whose clock was an hour ahead may be anybody's `last` reading.
    @Test func whatWasNotThereBeginsBehindOtherClocksAlsoAfterAVersionFromFarAhead() {
        let wall: UInt64 = 1_800_000_000_000_000
        var clock = HybridClock(writer: 9)
        _ = clock.tick(wallMicroseconds: wall, after: Version(time: (wall + 3_600_000_000) << 12, writer: 1))
        var right = HybridClock(writer: 2)
        let others = right.tick(wallMicroseconds: wall)
        #expect(clock.early(wallMicroseconds: wall) < others)
        #expect(clock.early(wallMicroseconds: wall) != clock.early(wallMicroseconds: wall))
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
