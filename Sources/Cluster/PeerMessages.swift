// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// What nodes say to each other in JSON, at `POST /peer/<name>`.
package enum PeerMessage {
    /// `ring`: "this is what I know; what do you?" Also the heartbeat.
    package struct RingExchange: Codable, Sendable {
        package var document: RingDocument?
        /// The speaker's memcached's; nil while it does not answer.
        package var generation: Generation?
        /// The speaker's hybrid clock.
        package var clock: UInt64
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
        package var job: RingTransitionStateMachine.Job
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

    /// `abort`: "should you come to drive this change, or do so now: climb down".
    package struct AbortRequest: Codable, Sendable {
        package var changeID: String
        package var reason: String
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
