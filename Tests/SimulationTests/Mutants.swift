// SPDX-License-Identifier: Apache-2.0

/// Mistakes that the simulation can make on purpose, each by undoing one decision of the protocol: the checkers have to
/// notice every one of them.
enum Mutant: String, CaseIterable, Sendable {
    /// Reads in step crossing ask the old side only.
    case noCrossingReads
    /// A crossing read answers the newest pair without letting the other side hold it first.
    case noWriteBack
    /// Verifying finds nothing to do.
    case noVerify
    /// What copying has covered is noted when it ends, not when it begins.
    case notesCopiedLate
    /// Copying finds nothing to do, and neither does verifying.
    case noCopy
    /// A host says that it has adopted a document as soon as it has it on record.
    case noWaitForAdoption
    /// Nobody compares the generations of memories.
    case noGenerationFence
    /// A write of a moving slot takes its version from the clock alone.
    case noFirstPhase
    /// Any driver's document is accepted, whoever was promised.
    case noPromise
    /// A write that begins again under a newer ring is stamped again.
    case stampsTwice
    /// A batch is done whatever the host's stamp says.
    case noStampCheck
    /// Whatever arrives last is stored.
    case noVersionCheck
    /// Losing nodes delete when the new side begins to answer, not once all have let go of the old one.
    case cleansTooEarly
    /// Losing nodes delete though a gaining one has lost what was verified.
    case cleansAfterALoss
    /// A stamped write whose outcome is unknown is sent again.
    case resendsStamps

    /// A node whose memory was lost answers reads at once.
    case votesWhileRecovering
    /// A ring change goes on while a node that will hold what moves has to be refilled.
    case changesWhileRecovering
    /// A new machine under an old address counts as one that has everything.
    case trustsNewMachines
    /// A read of several replicas answers without letting a quorum hold what it answers.
    case noQuorumWriteBack

    /// A conditional write is stored wherever it is the newer one.
    case noConditionAtDecider
    /// Both first owners of a moving slot decide while both sides answer reads.
    case decidesWhileCrossing

    /// A host lists what it finds, whatever its stamp says.
    case listsUnderAnyStamp
    /// A host lists though its memory was lost.
    case listsWhileRecovering
    /// A listing takes whatever answers there are for all.
    case listsWithoutQuorum

    /// Whether a client lists all pairs.
    var isAboutListings: Bool {
        self == .listsUnderAnyStamp || self == .listsWhileRecovering || self == .listsWithoutQuorum
    }

    /// Whether clients write under conditions.
    var isAboutConditions: Bool { self == .noConditionAtDecider || self == .decidesWhileCrossing }

    /// How many replicas the mistake needs to matter.
    var replicas: Int {
        switch self {
        case .votesWhileRecovering, .changesWhileRecovering, .noQuorumWriteBack, .trustsNewMachines,
            .listsWhileRecovering:
            3
        default: 1
        }
    }

    /// Where the search for a seed that shows the mistake begins: some need thousands, and the suite has little time.
    var firstSeed: UInt64 {
        switch self {
        case .noWaitForAdoption: 3701
        case .notesCopiedLate: 5001
        case .cleansAfterALoss: 801
        case .changesWhileRecovering: 601
        case .decidesWhileCrossing: 701
        case .listsWhileRecovering: 401
        default: 1
        }
    }
}
