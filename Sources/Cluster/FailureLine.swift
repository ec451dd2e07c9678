// SPDX-License-Identifier: Apache-2.0

package import KeyValue

extension OperationFailure.Reason {
    /// What a client is told of it, whatever protocol it speaks: one sentence that says what to do.
    package var line: String {
        switch self {
        case .memcachedUnavailable: "The memcached of a node that holds the key does not answer; see that it runs."
        case .nodeUnreachable: "A node that holds the key does not answer; see that it runs."
        case .deadline: "The request's time was up before it was done."
        case .overloaded: "Too much waits to be done already. Try again in a second."
        case .outOfMemory: "The owner's memory is full; the old value stays. Add a node, or give memcached more memory."
        case .tooLarge: "The value is larger than the owner's memcached takes."
        case .recovering: "A node that holds the key has lost its memory, and is being refilled."
        case .notOwner: "The nodes disagree on who owns the key. Try again in a second."
        case .noRing: "The node has no ring. POST one to /hash_ring, as deploy/reconfigure.sh does."
        case .tooFewReplicas: "The ring keeps fewer replicas than the request wants to hear of; see r and w."
        case .changingOwner:
            "The key is moving to another node, which will decide on conditions. Try again in a second."
        case .contended: "Others kept overwriting the pair while its condition was looked at. Try again."
        case .clockAhead: "This node's clock is too far ahead of the others' to stamp writes; set it right."
        case .logFailed: "A node that holds the key can't write its log to disk; see its disk, and log on its /status."
        case .protocolViolation: "A node answered what it should not; see that all run the same version."
        }
    }
}
