// SPDX-License-Identifier: Apache-2.0

package import KeyValue
package import NIOCore

/// One command of memcached's protocol, read and checked.
package struct Command: Hashable, Sendable {
    /// As what it is counted.
    package var verb: Verb
    package var action: Action
    /// `noreply`: no answer at all; the meta commands' `q`: none where all is as usual.
    package var isQuiet = false
    /// What a meta command's answer brings back; nil for the others, which are answered in words.
    package var meta: MetaReply?

    package init(_ verb: Verb, _ action: Action, isQuiet: Bool = false, meta: MetaReply? = nil) {
        self.verb = verb
        self.action = action
        self.isQuiet = isQuiet
        self.meta = meta
    }

    /// What it holds in memory until it is done.
    package var heldBytes: Int {
        switch action {
        case .store(_, let store): store.value.readableBytes
        case .get(let keys, withCas: _, touch: _): keys.reduce(0) { $0 + $1.bytes.count + Limits.bytesBesideKey }
        default: 0
        }
    }

    package enum Verb: UInt8, CaseIterable, Sendable {
        case get, gets, gat, gats
        case set, add, replace, append, prepend, cas
        case delete, incr, decr, touch
        case mg, ms, md, ma, mn
        case version, verbosity, stats, quit
        /// One that is known and not served, or not known.
        case none

        /// What a line begins with; `none` where that is no command.
        init(named name: UnsafeRawBufferPointer) {
            let place = name.count <= Verb.longestName ? Verb.names.firstIndex(of: Verb.packed(name)) : nil
            self = place.flatMap { Verb(rawValue: UInt8($0)) } ?? .none
        }

        var name: String { String(describing: self) }

        /// By their raw values, each as one number, so that none has to be made a `String` of.
        private static let names = ContiguousArray(allCases.map { packed($0.name.utf8) })
        private static let longestName = 15

        private static func packed(_ name: some Sequence<UInt8>) -> UInt128 {
            name.reduce(1) { $0 << 8 | UInt128($1) }
        }

        var isStorage: Bool {
            switch self {
            case .set, .add, .replace, .append, .prepend, .cas, .ms: true
            default: false
            }
        }

        /// Whether its line may name many keys.
        var isRetrieval: Bool {
            switch self {
            case .get, .gets, .gat, .gats: true
            default: false
            }
        }
    }

    package enum Action: Hashable, Sendable {
        /// - Parameters:
        ///   - withCas: whether each answer has its cas unique.
        ///   - touch: the new expiry of what is found; nil: it stays.
        case get([Key], withCas: Bool, touch: ExpirationTime?)
        /// `mg`.
        /// - Parameter unlessCas: the value is left out where the pair has this cas unique.
        case metaGet(Key, withValue: Bool, unlessCas: UInt64?, touch: ExpirationTime?)
        case store(Key, Store)
        case delete(Key, cas: UInt64?)
        case count(Key, Count)
        case touch(Key, ExpirationTime)
        case stats
        /// Answered at once, whatever comes.
        case say(String)
        case quit
    }

    /// What a storage command wants stored.
    package struct Store: Hashable, Sendable {
        package enum Mode: Hashable, Sendable {
            case set, add, replace
            /// - Parameter creating: with this expiry, where there is none; nil: it is not stored then.
            case append(creating: ExpirationTime?)
            case prepend(creating: ExpirationTime?)
        }

        package var mode: Mode
        /// Only over a pair with this cas unique.
        package var cas: UInt64?
        package var flags: UInt32 = 0
        package var expiry = ExpirationTime.never
        package var value = ByteBuffer()

        package init(_ mode: Mode, cas: UInt64? = nil) {
            self.mode = mode
            self.cas = cas
        }
    }

    /// `incr`, `decr` and `ma`.
    package struct Count: Hashable, Sendable {
        package var isDecrement = false
        package var delta: UInt64 = 1
        /// Only over a pair with this cas unique.
        package var cas: UInt64?
        /// The new expiry; nil: it stays.
        package var touch: ExpirationTime?
        /// What a counter begins with that is not there, and when that expires; nil: it is not made.
        package var creating: (initial: UInt64, expiry: ExpirationTime)?

        package init() {}

        package static func == (left: Count, right: Count) -> Bool {
            (left.isDecrement, left.delta, left.cas, left.touch, left.creating?.initial, left.creating?.expiry)
                == (
                    right.isDecrement, right.delta, right.cas, right.touch, right.creating?.initial,
                    right.creating?.expiry
                )
        }

        package func hash(into hasher: inout Hasher) {
            hasher.combine(delta)
            hasher.combine(cas)
        }
    }
}

/// What a meta command's answer brings back, in the order in which it was asked for.
package struct MetaReply: Hashable, Sendable {
    package enum Item: Hashable, Sendable {
        /// `O`: what was sent, with its letter.
        case opaque(ByteBuffer)
        case key
        case cas
        case clientFlags
        case size
        case timeToLive
    }

    package var items: [Item] = []
    /// As it was sent: encoded where it came so.
    package var key = ByteBuffer()
    package var isKeyEncoded = false
    /// Of `ma`: whether the number is in the answer.
    package var withNumber = false

    package init() {}
}

/// An expiration time as memcached's clients say it.
package enum ExpirationTime: Hashable, Sendable {
    case never
    /// So many seconds from when the command is done.
    case inSeconds(UInt32)
    /// Since 1970.
    case atSecond(UInt32)
    /// Gone as soon as it is stored.
    case past

    /// Beyond this, a number is no time from now but one since 1970.
    package static let longestRelativeSeconds: Int64 = 30 * 86_400

    /// Nil where the number is larger than any time.
    package init?(_ number: Int64) {
        switch number {
        case ..<0: self = .past
        case 0: self = .never
        case ...ExpirationTime.longestRelativeSeconds: self = .inSeconds(UInt32(number))
        default:
            guard let second = UInt32(exactly: number) else { return nil }
            self = .atSecond(second)
        }
    }

    package enum Resolved: Hashable, Sendable {
        case never
        /// In milliseconds since 1970.
        case at(UInt64)
        case gone
    }

    /// - Parameter now: the wall clock, in milliseconds since 1970.
    package func resolved(atMilliseconds now: UInt64) -> Resolved {
        switch self {
        case .never: .never
        case .past: .gone
        case .inSeconds(let seconds): .at(now + UInt64(seconds) * 1000)
        case .atSecond(let second): UInt64(second) * 1000 > now ? .at(UInt64(second) * 1000) : .gone
        }
    }
}
