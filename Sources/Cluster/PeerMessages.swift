// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue

/// What nodes say to each other in JSON, at `POST /peer/<name>`.
package enum PeerMessage {
    /// `ring`: "this is what I know; what do you?" Also the heartbeat.
    package struct RingExchange: Codable, Sendable {
        package var document: RingDocument?
        /// The speaker's memcached's; nil while it does not answer.
        package var generation: Generation?
        /// The speaker's hybrid clock.
        package var clock: UInt64
        /// The speaker's wall clock, in milliseconds since 1970.
        package var wallMilliseconds: UInt64? = nil
        /// Whether no node had a ring before this one.
        package var isFounding: Bool? = nil
    }

    /// `promise`: "accept the next document from me alone".
    package struct PromiseRequest: Codable, Sendable {
        package var holder: String
        package var lifeMilliseconds: Int64
        /// Only if the speaker has it still.
        package var isRenewal: Bool
    }

    package struct PromiseAnswer: Codable, Sendable {
        /// Who has the promise instead; nil where it was granted.
        package var heldBy: String?
        package var document: RingDocument?
        package var generation: Generation
    }

    /// `release`: "I need your promise no longer".
    package struct Release: Codable, Sendable {
        package var holder: String
    }

    /// `announce`: "stand on this document".
    package struct Announcement: Codable, Sendable {
        package var document: RingDocument
        package var holder: String
        /// Whether the document is made real by this node's word, so that it needs its promise.
        package var needsPromise: Bool
    }

    package struct AnnouncementAnswer: Codable, Sendable {
        package enum State: String, Codable, Sendable {
            /// The document is kept, and nothing of an older one is under way.
            case adopted
            /// Kept, but some worker has not let go of the older one yet.
            case draining
            /// Kept, but this memory has to be refilled before the change may go on.
            case recovering
            /// Kept; but what was verified here is lost, and the losers, which may delete it now, alone have it still.
            case lostWhatWasVerified
            case overtaken
            case notPromised
        }

        package var state: State
        package var generation: Generation
    }

    /// `job`: "do this, or say how far it is".
    package struct JobRequest: Codable, Sendable {
        package var document: RingDocument
        package var changeID: String
        package var kind: JobKind
    }

    /// `repair`: "give me what I lack, or say how far you are".
    package struct RepairRequest: Codable, Sendable {
        package var document: RingDocument
        package var repair: RepairJob
        /// Names the pass of anti-entropy that it belongs to; nil: the refill of a memory that was lost.
        package var pass: String?
    }

    /// `digests`: "what do you hold?" Takes as long as a look at all pairs.
    package struct DigestRequest: Codable, Sendable {
        package var epoch: Epoch
    }

    package struct DigestAnswer: Codable, Sendable {
        package var generation: Generation
        /// Nil where the node can't say: it stands on another ring, or is recovering.
        package var digests: SlotDigests?
    }

    /// `list`: "what have you, from there on, of the slots on which you answer reads?" Its answer is no JSON, but what
    /// `HostListingCodec` makes.
    package struct ListRequest: Codable, Sendable {
        package var epoch: Epoch
        /// A `ListingMark`'s.
        package var after: [UInt8]
        /// Of the clients' keys.
        package var prefix: [UInt8]
        /// Records, at most.
        package var limit: Int
        /// Their bytes, at most (but for the last batch), where they are wanted with their values; nil: without.
        package var bytes: Int?
    }

    package struct RepairAnswer: Codable, Sendable {
        package var job: JobAnswer
        /// Whether the job gives all that was ever acknowledged here: its memory is no recovering one.
        package var isWhole: Bool
        /// Whether this node lost its own memory too.
        package var isRecovering: Bool
    }

    package struct JobAnswer: Codable, Sendable {
        package enum State: String, Codable, Sendable { case running, done, failed, overtaken }
        package var state: State
        package var progress: JobProgress
        package var report: RingTransitionStateMachine.JobReport?
        package var error: String?
        /// The memory's on which it is done.
        package var generation: Generation?
    }

    /// `wish`: "should you come to drive this change, or do so now: this is what an operator wants of it".
    package struct ChangeWish: Codable, Sendable, Hashable {
        package enum Want: Codable, Sendable, Hashable {
            /// Climb down.
            case abort(reason: String)
            /// Go on without this node, which is gone for good.
            case goOn(without: NodeID)
        }

        package var changeID: String
        package var want: Want
    }
}

/// How far a job is.
package struct JobProgress: Codable, Sendable, Hashable {
    /// Pairs found to be looked at; grows while a node with very many pairs scans in turns.
    package var pairsFound = 0
    package var pairsDone = 0
    /// Pairs that were sent or deleted.
    package var pairsMoved = 0
    package var bytesMoved = 0
    package var seconds = 0.0
}

extension JobProgress {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            pairsFound: try container.decodeCount(forKey: .pairsFound),
            pairsDone: try container.decodeCount(forKey: .pairsDone),
            pairsMoved: try container.decodeCount(forKey: .pairsMoved),
            bytesMoved: try container.decodeCount(forKey: .bytesMoved),
            seconds: try container.decode(Double.self, forKey: .seconds))
    }
}
