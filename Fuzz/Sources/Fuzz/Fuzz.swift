// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
private import Glibc

/// SwiftPM has an executable's `main` under this name. (libFuzzer's own is therefore not linked.)
@_cdecl("Fuzz_main")
public func main(
    _ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
) -> CInt {
    var count = count
    var arguments = arguments
    return runDriver(&count, &arguments, fuzz)
}

/// libFuzzer's `LLVMFuzzerRunDriver`, which has no header here.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<CInt>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
    _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// What libFuzzer calls with each input. One program has all targets, so that it is linked once; `KV_FUZZ_TARGET` says
/// which one is meant (`run.sh` sets it).
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    target(UnsafeRawBufferPointer(start: bytes, count: count))
    return 0
}

/// The target of this run.
private let target: @Sendable (UnsafeRawBufferPointer) -> Void = {
    let name = ProcessInfo.processInfo.environment["KV_FUZZ_TARGET"] ?? ""
    guard let target = targets[name] else {
        print("KV_FUZZ_TARGET is one of \(targets.keys.sorted().joined(separator: " "))")
        exit(64)
    }
    return target
}()

/// By name; each takes any bytes, and ends the process where something is wrong.
private let targets: [String: @Sendable (UnsafeRawBufferPointer) -> Void] = [
    // HTTP
    "head": fuzzHead, "connection": fuzzConnection, "form": fuzzForm, "fields": fuzzFields,
    "batch-json": fuzzBatchJSON, "cursor": fuzzCursor,
    // Who may do what
    "tokens": fuzzTokens, "addresses": fuzzAddresses, "handshake": fuzzHandshake,
    // Between nodes, and kept
    "envelope": fuzzEnvelope, "stored-key": fuzzStoredKey, "peer-batch": fuzzPeerBatch, "peer-answer": fuzzPeerAnswer,
    "peer-json": fuzzPeerJSON, "listing": fuzzListing, "ring-json": fuzzRingJSON, "host-record": fuzzHostRecord,
    "snapshot": fuzzSnapshot, "backup": fuzzBackup, "import": fuzzImport, "etcd": fuzzEtcd, "manifest": fuzzManifest,
    // From the operator
    "configuration": fuzzConfiguration,
    // What kvctl and the page read
    "status": fuzzStatus, "metrics": fuzzMetrics, "balancer": fuzzBalancer,
    // memcached
    "metadump": fuzzMetadump, "replies": fuzzReplies, "stamp": fuzzStamp, "commands": fuzzCommands,
]

/// Ends the process where what has to hold does not.
func hold(_ isTrue: @autoclosure () -> Bool, _ what: @autoclosure () -> String) {
    if !isTrue() { fatalError(what()) }
}

extension UnsafeRawBufferPointer {
    /// Where a stream is cut: the first bytes say how long the pieces are, the others are the stream.
    var cut: (pieces: [Int], stream: UnsafeRawBufferPointer) {
        guard count > 4 else { return ([], self) }
        return (self[..<4].map { Int($0) % 97 + 1 }, UnsafeRawBufferPointer(rebasing: self[4...]))
    }

    /// The stream in those pieces, over and over.
    func inPieces(_ lengths: [Int], _ body: (UnsafeRawBufferPointer) -> Void) {
        var start = 0
        var turn = 0
        while start < count {
            let end = lengths.isEmpty ? count : Swift.min(start + lengths[turn % lengths.count], count)
            body(UnsafeRawBufferPointer(rebasing: self[start..<end]))
            start = end
            turn += 1
        }
    }
}
