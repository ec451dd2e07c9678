// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// Why an operator's request was not done.
package enum OperatorError: Error, Sendable {
    /// The ring does not allow it; nothing was changed.
    case refused(RingChangeError)
    /// Another change is under way.
    case busy(String)
    /// The nodes' rings are at odds, and the text says what to do about it; nothing was changed.
    case ringsDisagree(String)
    /// There is no change to abort, or it is past the point of return.
    case nothingToAbort(String)
    /// The change was given up and undone.
    case aborted(String)
    /// This node has no ring.
    case noRing
    /// A node that is needed did not answer; nothing was changed.
    case unreachable(String)
    /// It may have been done, in whole or in part, or may be yet; this node can't say.
    case unknown(String)
}
