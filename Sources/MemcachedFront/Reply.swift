// SPDX-License-Identifier: Apache-2.0

private import Cluster
package import KeyValue
package import NIOCore

/// An answer as it is written: lines, and perhaps a value behind them, which is not copied where it is long.
package struct Reply: Hashable, Sendable {
    package var lines: ByteBuffer
    /// With a line end behind it.
    package var value: ByteBuffer?

    /// A value up to this many bytes is copied behind its line, so that many answers make one write.
    package static let copiedBytes = 16 << 10

    package init(_ line: String) {
        lines = ByteBuffer()
        lines.reserveCapacity(line.utf8.count + 2)
        lines.writeString(line)
        lines.writeStaticString("\r\n")
    }

    private init(lines: ByteBuffer, value: ByteBuffer?) {
        self.lines = lines
        self.value = value
    }

    /// Behind the last pair of a get.
    static let end = Reply("END")

    package var bytes: Int { lines.readableBytes + (value.map { $0.readableBytes + 2 } ?? 0) }

    /// Writes what is copied; returns the value where it is to be written by itself, and then a line end.
    package func encode(into buffer: inout ByteBuffer) -> ByteBuffer? {
        buffer.writeImmutableBuffer(lines)
        guard let value else { return nil }
        if value.readableBytes > Reply.copiedBytes { return value }
        buffer.writeImmutableBuffer(value)
        buffer.writeStaticString("\r\n")
        return nil
    }

    /// `VALUE <key> <flags> <bytes> [<cas unique>]`, and the value, where that is not in chunks.
    package static func value(_ pair: Envelope, of key: Key, cas: UInt64?) -> Reply {
        var lines = ByteBuffer()
        lines.reserveCapacity(key.bytes.count + 48)
        lines.writeStaticString("VALUE ")
        lines.writeBytes(key.bytes)
        lines.writeStaticString(" ")
        lines.writeString("\(pair.clientFlags) \(pair.valueLength)")
        if let cas { lines.writeString(" \(cas)") }
        lines.writeStaticString("\r\n")
        return Reply(lines: lines, value: pair.isManifest ? nil : pair.value)
    }

    /// What a meta command's answer can say of the pair that it is about.
    package struct Facts: Hashable, Sendable {
        package var cas: UInt64 = 0
        package var clientFlags: UInt32 = 0
        package var size = 0
        /// In whole seconds; nil: it does not expire.
        package var timeToLive: UInt64?

        package init() {}

        /// - Parameter now: the wall clock, in milliseconds since 1970.
        package init(_ pair: Envelope, _ version: Version, atMilliseconds now: UInt64) {
            cas = version.casUnique
            clientFlags = pair.clientFlags
            size = pair.valueLength
            timeToLive = pair.expiryMilliseconds.map { $0 > now ? ($0 - now) / 1000 : 0 }
        }
    }

    /// - Parameters:
    ///   - code: `HD`, `EN` and so on; `VA` where there is a value.
    ///   - facts: nil where there is no pair to speak of: then only what the client sent comes back.
    ///   - largeValueBytes: how many bytes follow, where they are not at hand.
    package static func meta(
        _ code: StaticString, _ wanted: MetaReply, _ facts: Facts?, value: ByteBuffer? = nil,
        largeValueBytes: Int? = nil
    ) -> Reply {
        var lines = ByteBuffer()
        if let bytes = value?.readableBytes ?? largeValueBytes {
            lines.writeString("VA \(bytes)")
        } else {
            lines.writeStaticString(code)
        }
        for item in wanted.items {
            switch (item, facts) {
            case (.opaque(let word), _):
                lines.writeStaticString(" ")
                lines.writeImmutableBuffer(word)
            case (.key, _):
                lines.writeStaticString(" k")
                lines.writeImmutableBuffer(wanted.key)
                if wanted.isKeyEncoded { lines.writeStaticString(" b") }
            case (.cas, let facts?): lines.writeString(" c\(facts.cas)")
            case (.clientFlags, let facts?): lines.writeString(" f\(facts.clientFlags)")
            case (.size, let facts?): lines.writeString(" s\(facts.size)")
            case (.timeToLive, let facts?):
                lines.writeString(facts.timeToLive.map { " t\($0)" } ?? " t-1")
            case (_, nil): break
            }
        }
        lines.writeStaticString("\r\n")
        return Reply(lines: lines, value: value)
    }
}

/// How a command ended: what goes out, and as what it is counted.
package struct CommandAnswer: Hashable, Sendable {
    package enum Outcome: Int, CaseIterable, Sendable {
        /// There was a pair, or one of several.
        case hit
        /// There was none.
        case miss
        case done
        /// `NOT_STORED`, `EXISTS`.
        case unmet
        case clientError
        /// `SERVER_ERROR`, and definitely without effect.
        case notApplied
        /// `SERVER_ERROR outcome unknown`.
        case unknown

        var label: String {
            switch self {
            case .hit: "hit"
            case .miss: "miss"
            case .done: "done"
            case .unmet: "unmet"
            case .clientError: "client-error"
            case .notApplied: "not-applied"
            case .unknown: "unknown"
            }
        }
    }

    package var outcome: Outcome
    /// Nil: nothing is said.
    package var reply: Reply?
    /// The connection ends after it.
    package var closes = false

    package init(_ outcome: Outcome, _ reply: Reply?, closes: Bool = false) {
        self.outcome = outcome
        self.reply = reply
        self.closes = closes
    }

    package init(_ refusal: CommandRefusal) {
        self.init(
            refusal.line.hasPrefix("SERVER") ? .notApplied : .clientError,
            refusal.isSilent ? nil : Reply(refusal.line), closes: refusal.closes)
    }

    /// What the store answers when it did not do what was asked.
    package init(_ failure: OperationFailure) {
        let text: String
        switch failure {
        case .notApplied(.tooLarge): text = "object too large for cache"
        // (By these words some clients know it.)
        case .notApplied(.outOfMemory):
            text = "out of memory storing object: \(OperationFailure.Reason.outOfMemory.line)"
        case .notApplied(let reason): text = reason.line
        case .outcomeUnknown(let reason): text = "outcome unknown: \(reason.line)"
        case .tooFewHold(let count, let wanted, let reason):
            text = "outcome unknown: stored by \(count) of the \(wanted) replicas that it takes. \(reason.line)"
        case .staleRing: text = "The ring is changing. Try again in a second."
        // (Each command says in its own way that its condition does not hold.)
        case .preconditionFailed: text = "Others kept overwriting the pair. Try again."
        }
        let isUnknown =
            switch failure {
            case .outcomeUnknown, .tooFewHold: true
            case .notApplied, .staleRing, .preconditionFailed: false
            }
        self.init(isUnknown ? .unknown : .notApplied, Reply("SERVER_ERROR \(text)"))
    }
}
