// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// What a host may be asked to do with its pairs in the background.
package enum JobKind: Hashable, Sendable, Codable {
    /// Its part of a ring change.
    case change(RingTransitionStateMachine.Job)
    case repair(RepairJob)

    /// A host does one job of each kind and target at a time, each with a record of its own.
    package var recordKey: String {
        switch self {
        case .change: "job"
        case .repair(let repair): "job.repair.\(repair.target.node)"
        }
    }

    /// From a failure to the next try.
    var pauseMilliseconds: Int64 {
        switch self {
        case .change: 200
        case .repair: 2000
        }
    }

    package var name: String {
        switch self {
        case .change(let job): job.rawValue
        case .repair: "repair"
        }
    }
}

/// To give another replica what it lacks of the slots that both hold.
package struct RepairJob: Hashable, Sendable, Codable {
    /// Who lacks it, and the memory that it has to be in.
    package let target: RingTransition.Fence
    /// Only these, comparing versions first; nil: all, without asking, for a memory that was lost.
    package let slots: [UInt16]?

    package init(target: RingTransition.Fence, slots: [UInt16]? = nil) {
        self.target = target
        self.slots = slots
    }
}
