// SPDX-License-Identifier: Apache-2.0

/// Every bound of the store, with its unit. What is hit here is refused with a clear answer, never queued without end.
package enum Limits {
    /// A client's key, after percent-decoding.
    package static let keyBytes = 4096
    /// memcached's own limit.
    package static let storedKeyBytes = 250
    /// A stored key longer than this is replaced by a digest.
    package static let plainStoredKeyBytes = 240
    /// What memcached 1.6 adds to a key and its value: header, cas token, line ends, and the chunks' headers of a large
    /// item.
    package static let itemHeaderBytes = 200
    /// What header, stored key and our envelope may take of memcached's item size limit.
    package static let itemOverheadBytes = itemHeaderBytes + storedKeyBytes + 62

    /// The longest time to live of a pair, in seconds: ten years.
    package static let timeToLiveSeconds = 315_360_000
    /// How long memcached keeps what says that a pair was deleted, so that no older copy comes back.
    package static let tombstoneSeconds = 86_400
    /// And at least for this long, however old the deletion is when it arrives.
    package static let lateTombstoneSeconds = 3600
    /// How long memcached keeps a pair after it has expired, for the same reason.
    package static let expiredSeconds = 600
    /// The largest value that memcached takes by default; the node asks memcached for its real limit when it starts.
    package static let defaultItemBytes = 1 << 20

    /// Request line, after which 414.
    package static let requestTargetBytes = 16 << 10
    /// All header fields of a request, names and values, after which 431.
    package static let requestHeaderBytes = 32 << 10
    /// Header fields of a request, after which 431.
    package static let requestHeaderFields = 64
    /// Requests of one connection that are being answered at the same time; further ones wait in the socket.
    package static let pipelinedRequests = 64
    /// A refused body is read and thrown away up to this size, so that the connection stays usable; a larger one closes
    /// it.
    package static let discardedBodyBytes = 16 << 20
    /// Bytes of bodies that are being received and of answers that wait to be sent, in one worker; beyond that,
    /// requests that would add to them are refused 503.
    package static let frontBytes = 256 << 20
    /// Client connections of one worker.
    package static let connectionsPerWorker = 20_000

    /// Operations that wait for one destination (this host's lanes, or a peer) in one worker; the next is refused 503.
    package static let waitingOperations = 8192
    /// Bytes of values that wait for one destination.
    package static let waitingBytes = 64 << 20
    /// Operations in one mget.
    package static let laneBatchOperations = 256
    /// Bytes of keys and values after which a lane's turn is closed; one batch may be larger by itself.
    package static let laneBatchBytes = 1 << 20
    /// Operations in one `POST /peer/batch`.
    package static let peerBatchOperations = 512
    /// Bytes after which a peer batch is closed; one operation may be larger by itself.
    package static let peerBatchBytes = 1 << 20
    /// The largest peer batch that is read: a full one, whose last operation is as large as an item can be.
    package static let peerBodyBytes = 64 << 20
    /// Connections of one worker to one peer.
    package static let connectionsPerPeer = 4
    /// How often a read is asked again of a node whose connection broke, or stayed silent.
    package static let readTries = 3
    /// How often one operation follows a newer ring before it gives up.
    package static let ringRetries = 16

    /// How far ahead of this clock a version may be.
    package static let clockAheadMilliseconds = 10_000

    /// Keys that one scan hands on; where a node holds more, it scans again from the slot that it reached.
    package static let scanKeys = 2_000_000
    /// Bytes of keys that one scan hands on.
    package static let scanKeyBytes = 256 << 20
    /// How long a scan may find nothing, in seconds. The empty hash table that goes with a gibibyte of memory takes 1.6
    /// s, the one for 64 GiB two minutes.
    package static let scanSilenceSeconds = 600
    /// Pairs in one hand-off batch.
    package static let handoffBatchPairs = 256
    /// Bytes of the items in one hand-off batch, as the scan found them; one may be larger by itself.
    package static let handoffBatchBytes = 1 << 20
    /// Hand-off batches under way at once.
    package static let handoffWindow = 4
    /// Pairs that are deleted before this host may take up a newer ring.
    package static let deletedAtOnce = 4096

    /// A ring document as JSON, in a request or from a peer.
    package static let ringDocumentBytes = 1 << 20
}
