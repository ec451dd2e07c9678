// SPDX-License-Identifier: Apache-2.0

import KeyValue
import NIOCore
import Testing

struct PreconditionTests {
    private static let now: UInt64 = 1_800_000_000_000
    private static let (held, other) = (Version(time: 5, writer: 5), Version(time: 5, writer: 6))

    private static func pair(isTombstone: Bool = false, expiringIn milliseconds: Int64? = nil) -> Envelope {
        let key = Key("k")!
        return Envelope(
            key: key, storedKey: StoredKey(key), value: ByteBuffer(), version: held, isTombstone: isTombstone,
            expiryMilliseconds: milliseconds.map { UInt64(Int64(now) + $0) })
    }

    private func verdict(_ precondition: Precondition, _ pair: Envelope?) -> Precondition.Verdict {
        precondition.verdict(on: pair, atMilliseconds: PreconditionTests.now)
    }

    @Test func nothingIsAlwaysMet() {
        #expect(Precondition().isEmpty && verdict(Precondition(), nil) == .met)
        #expect(verdict(Precondition(), PreconditionTests.pair()) == .met)
    }

    @Test func aPairInOneOfTheVersions() {
        let pair = PreconditionTests.pair(expiringIn: 1)
        let (held, other) = (PreconditionTests.held, PreconditionTests.other)
        #expect(verdict(Precondition(ifMatch: .any), pair) == .met)
        #expect(verdict(Precondition(ifMatch: .versions([other, held])), pair) == .met)
        #expect(verdict(Precondition(ifMatch: .versions([other])), pair) == .ifMatchFailed)
        #expect(verdict(Precondition(ifMatch: .versions([])), pair) == .ifMatchFailed)
        #expect(verdict(Precondition(ifNoneMatch: .any), pair) == .ifNoneMatchFailed)
        #expect(verdict(Precondition(ifNoneMatch: .versions([other, held])), pair) == .ifNoneMatchFailed)
        #expect(verdict(Precondition(ifNoneMatch: .versions([other])), pair) == .met)
        #expect(verdict(Precondition(ifMatch: .any, ifNoneMatch: .versions([held])), pair) == .ifNoneMatchFailed)
        #expect(verdict(Precondition(ifMatch: .versions([other]), ifNoneMatch: .any), pair) == .ifMatchFailed)
    }

    @Test(arguments: [
        nil, PreconditionTests.pair(isTombstone: true), PreconditionTests.pair(isTombstone: true, expiringIn: 1),
        PreconditionTests.pair(expiringIn: 0),
    ])
    func noPair(_ gone: Envelope?) {
        #expect(verdict(Precondition(ifMatch: .any), gone) == .ifMatchFailed)
        #expect(verdict(Precondition(ifMatch: .versions([PreconditionTests.held])), gone) == .ifMatchFailed)
        #expect(verdict(Precondition(ifNoneMatch: .any), gone) == .met)
        #expect(verdict(Precondition(ifNoneMatch: .versions([PreconditionTests.held])), gone) == .met)
    }

    @Test func storesOnlyWhereNothingNewerIsHeld() {
        var envelope = PreconditionTests.pair()
        let expected = Version(time: 9, writer: 1)
        let next = expected.successor(by: 4)
        envelope.stamp(next)
        for held in [.none, Version(time: 8, writer: 7), expected] {
            #expect(Apply.replacing(envelope, over: expected, held: held) == .store(envelope))
        }
        for held in [expected.successor(by: 1), next, expected.successor(by: 9), Version(time: 10, writer: 0)] {
            #expect(Apply.replacing(envelope, over: expected, held: held) == .keep(newest: held))
        }
    }
}
