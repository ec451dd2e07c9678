// SPDX-License-Identifier: Apache-2.0

/// Every bound of the store, with its unit. What is hit here is refused with a clear answer, never queued without end.
package enum Limits {
    /// A client's key, after percent-decoding.
    package static let keyBytes = 4096
    /// A value's Content-Type: an envelope keeps its length in one byte.
    package static let contentTypeBytes = 255
    /// What a key in memory takes beside its bytes, roughly.
    package static let bytesBesideKey = 64
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

    /// The largest value of all, in chunks where memcached takes no item so large.
    package static let valueBytes = 64 << 20
    /// A chunk of a large value; less where memcached's item limit is less.
    package static let chunkBytes = 256 << 10
    /// Chunks of one value that are being written, or read, at the same time.
    package static let chunkWindow = 4
    /// How long a large value may take to arrive and be stored, in seconds, where the configuration does not say.
    package static let uploadSeconds = 600
    /// Uploads without a manifest that one host keeps in mind.
    package static let watchedUploads = 100_000
    /// How long what says that a chunk was deleted is kept, in seconds. (An older chunk that comes back is deleted
    /// again.)
    package static let chunkTombstoneSeconds = 3600

    /// Request line, after which 414.
    package static let requestTargetBytes = 16 << 10
    /// All header fields of a request, names and values, after which 431.
    package static let requestHeaderBytes = 32 << 10
    /// Header fields of a request, after which 431.
    package static let requestHeaderFields = 64
    /// Length of a request's id.
    package static let requestIDBytes = 8...128
    /// Nodes that are noted of one request.
    package static let tracedNodes = 8
    /// Requests that a batch between nodes names, and all that it says of them: the first ones, where it is for more.
    package static let carriedRequests = 32
    package static let carriedRequestBytes = 1 << 10
    /// Of a sampled request's `tracestate`; whole members that don't fit are left out.
    package static let traceStateBytes = 512
    /// Log lines of slow or failed requests in one worker; the others are counted.
    package static let requestLinesPerSecond = 50
    /// Log lines of spans in one worker.
    package static let spanLinesPerSecond = 500
    /// Requests of one connection that are being answered at the same time; further ones wait in the socket.
    package static let pipelinedRequests = 64
    /// The user and the token that a client of memcached's shows, in bytes.
    package static let credentialBytes = 512
    /// A line of memcached's protocol.
    package static let commandLineBytes = 2048
    /// One that asks for many keys.
    package static let getLineBytes = 256 << 10
    /// A key in memcached's protocol, as it comes.
    package static let commandKeyBytes = 250
    /// Flags of one meta command, and bytes of what it has copied back.
    package static let metaFlags = 20
    package static let opaqueBytes = 32
    /// Commands of one connection that are read and not answered yet; further ones wait in the socket.
    package static let pipelinedCommands = 256
    /// Keys of one get that are being read, or wait to be sent, at the same time.
    package static let getWindow = 128
    /// Operations in one `POST /keys:batch`.
    package static let clientBatchOperations = 1000
    /// Bytes of its body, and of the values in its answer; and of values that one connection of memcached's protocol
    /// may have under way.
    package static let clientBatchBytes = 16 << 20
    /// A refused body is read and thrown away up to this size, so that the connection stays usable; a larger one closes
    /// it.
    package static let discardedBodyBytes = 16 << 20
    /// Bytes of bodies that are being received and of answers that wait or are being sent, in one worker; beyond that,
    /// requests that would add to them are refused 503.
    package static let frontBytes = 256 << 20
    /// Client connections of one worker.
    package static let connectionsPerWorker = 20_000
    /// Descriptors that a worker keeps for its own use, of the `count` that it may open: memcached, other nodes, files,
    /// and libdispatch, which ends the process where it can't open one. The rest is for clients.
    package static func descriptorsKept(of count: Int) -> Int {
        min(max(count / 4, 256), 2048, count / 4 * 3)
    }

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
    /// How long, at most, an operation on several replicas counts their answers together.
    package static let countedMilliseconds = 2000
    /// Replicas that a ring keeps where its operator does not say.
    package static let defaultReplicas = 3
    /// The most replicas that a ring may keep.
    package static let replicas = 9
    /// How often one operation follows a newer ring before it gives up.
    package static let ringRetries = 16

    /// How often a sloppy write takes a newer version because others are in the way, where no majority answers.
    package static let sloppyRounds = 3
    /// Hints that a host keeps for others, roughly: as many as it had when they were counted last, and those that it
    /// took since.
    package static let hints = 500_000
    /// Bytes of their envelopes.
    package static let hintBytes = 128 << 20
    /// Bytes of hints that a host hands on in a second. (It also rests as long as each batch took.)
    package static let hintBytesPerSecond = 16 << 20
    /// The age, in seconds, at which a hint is dropped: an hour before the first tombstone that it might undo is.
    package static let hintSeconds = tombstoneSeconds - 3600
    /// Entity tags in one `If-Match` or `If-None-Match`, after which 400.
    package static let entityTags = 64
    /// How far apart the versions of two conditional writes of the same pair may be: see `Version.successor(by:)`.
    package static let successorSteps: UInt32 = 1 << 16
    /// How much older than its clock a conditional write stamps a pair that was not there. More than clocks are apart,
    /// less than what was written before can have been forgotten (`expiredSeconds`).
    package static let createdEarlyMilliseconds = 300_000
    /// How often a conditional write looks at its condition again, where others overwrite the pair meanwhile.
    package static let conditionTries = 16

    /// Pairs on one page of `GET /keys`, at most, and where a client does not say.
    package static let listPagePairs = 100_000
    package static let defaultListPagePairs = 1000
    /// Records that a host lists at once, and their bytes where they are wanted whole. (The last batch may go over.)
    package static let listedPairs = 50_000
    package static let listedBytes = 8 << 20
    /// What all hosts together may list for one part, roughly: of many, each lists the less.
    package static let partPairs = 200_000
    package static let partBytes = 32 << 20
    /// How long a host may look for what it lists, in seconds.
    package static let listingSeconds: Int64 = 60
    /// How often a part of a listing is asked for again, a tenth of a second apart, while the ring moves on.
    package static let listingTries = 50
    /// After so long a page of a listing ends, however little is on it, in seconds. (A part may take longer.)
    package static let listPageSeconds: Int64 = 10
    /// Bytes of records in one `POST /keys:import`.
    package static let importBytes = 16 << 20
    /// Of those, how many are being stored at the same time.
    package static let importWindow = 64

    /// Open pages that one worker tells of the ring.
    package static let ringWatchers = 16
    /// After so long a page asks anew, in seconds: with a token that is still good, and of a page that is still there.
    package static let ringWatchSeconds: Int64 = 300

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
    /// Hand-off batches under way at once. (A client's write waits behind them.)
    package static let handoffWindow = 8
    /// Pairs that are deleted before this host may take up a newer ring.
    package static let deletedAtOnce = 4096

    /// Bytes of records in one block of a snapshot; one record may be larger by itself.
    package static let snapshotBlockBytes = 1 << 20
    /// The largest block of a snapshot that is written, and read.
    package static let snapshotLargestBlockBytes = 64 << 20
    /// Bytes of pairs that a snapshot reads from memcached in a second. (It also rests as long as each batch took.)
    package static let snapshotBytesPerSecond = 64 << 20
    /// Bytes of a snapshot that wait for the disk at once: written, and not synced yet.
    package static let snapshotUnsyncedBytes = 16 << 20
    /// How often a batch of a snapshot is asked again of a memcached that does not answer, or of a ring that moves on.
    package static let snapshotBatchTries = 16

    /// Bytes of records that a worker's log holds until they are synced; then writes are refused 507.
    package static let logBufferBytes = 32 << 20
    /// How long a record may wait for its sync before writes are refused 507.
    package static let logOverdueMilliseconds: Int64 = 5000
    /// How long records are collected before they are written to the segment, in milliseconds.
    package static let logWriteMilliseconds: Int64 = 20
    /// How long written records wait to be synced. Less than the second that is promised, so that the sync has its
    /// time.
    package static let logSyncMilliseconds: Int64 = 750
    /// Bytes of records after which a segment is synced at once.
    package static let logUnsyncedBytes = 8 << 20
    /// How long a segment of the log is written to, in milliseconds.
    package static let logSegmentMilliseconds: Int64 = 10_000
    /// Bytes of records after which a segment is closed.
    package static let logSegmentBytes = 64 << 20
    /// How often a log that fails tries a new segment, in milliseconds.
    package static let logRetryMilliseconds: Int64 = 1000
    /// How long the log is not read after a memory was lost, in milliseconds, so that workers have written what they
    /// had.
    package static let logSettleMilliseconds: Int64 = 250
    /// Bytes of the disk that the log leaves free beside what the next snapshot may need; on a small disk a part of it.
    package static let logSpareBytes = 64 << 20
    package static let logSparePart = 16
    /// How soon a snapshot may follow the last attempt where the log waits for one, in seconds.
    package static let logSnapshotSeconds = 10

    /// A ring document as JSON, in a request or from a peer.
    package static let ringDocumentBytes = 1 << 20
}
