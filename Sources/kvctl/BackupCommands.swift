// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Control
private import Glibc
private import HashRing
internal import NIOCore
private import NIOHTTP1

private struct BackupReport: Encodable {
    let file: String
    let blocks: Int
    let pairs: Int
    let bytes: Int
    let begunMilliseconds: UInt64?
    /// What a restore did.
    var stored: Int?
    var kept: Int?

    init(_ file: String, _ sum: BackupSum, _ header: BackupHeader?) {
        self.file = file
        blocks = sum.blocks
        pairs = sum.pairs
        bytes = sum.bytes
        begunMilliseconds = header?.begun
    }
}

/// Shows how far a backup or a restore is: a line that is redrawn on a terminal, a line every few seconds in a pipe.
private struct TransferMeter {
    private let verb: String
    private let isJSON: Bool
    private let began = ContinuousClock.now
    private var shown: ContinuousClock.Instant

    private static let pause = Duration.seconds(5)

    init(_ verb: String, isJSON: Bool) {
        self.verb = verb
        self.isJSON = isJSON
        shown = began
    }

    /// - Parameter share: 0…1, where it is known.
    mutating func show(pairs: Int, bytes: Int, share: Double? = nil) throws {
        guard !isJSON else { return }
        let now = ContinuousClock.now
        guard Console.isTerminal || now - shown >= TransferMeter.pause else { return }
        shown = now
        let seconds = (now - began) / .seconds(1)
        var line = "\(verb): \(pairs) pairs, \(Figures.bytes(Double(bytes)))"
        if seconds > 0.5 { line += ", \(Figures.bytes(Double(bytes) / seconds))/s" }
        if let share, share > 0, seconds > 0.5 {
            line += ", \(Int(share * 100)) %, \(Figures.duration(seconds: seconds / share - seconds)) left"
        }
        if Console.isTerminal { try Console.redraw(line) } else { try Console.say(line) }
    }

    func end() throws { if !isJSON, Console.isTerminal { try Console.write(Array("\r\u{1B}[K".utf8)) } }
}

/// A page may have to be scanned for, and written to many nodes.
private let leastPageSeconds = 60.0
/// Of a page, where too few nodes answer just then.
private let pageAttempts = 12

struct BackupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup", abstract: "Writes all pairs to a file, with their versions.",
        discussion: """
            Pairs that are written meanwhile may be in it or not. It is written to FILE.partial, which takes the name FILE \
            once it is whole; --resume goes on with one that was interrupted.
            """)

    @Argument(help: "The file.")
    var file: String

    @Flag(help: "Go on behind the last whole block of FILE.partial.")
    var resume = false

    @Flag(help: "Only look whether FILE is whole.")
    var verify = false

    @Flag(help: "Take the place of a FILE that is there.")
    var overwrite = false

    @OptionGroup var common: CommonOptions

    func run() async throws {
        if verify { return try await VerifyCommand.verify(file, common) }
        try await common.withClient { client in
            try requirePlace()
            let ring = try await client.ring()
            let output = try BackupFile(writing: file + ".partial")
            var (encoder, cursor, isComplete) = try await begin(output, epoch: ring.epoch)
            var meter = TransferMeter("backing up", isJSON: common.json)
            while !isComplete {
                let query = cursor.map { "?cursor=\(PercentEncoding.encode($0))" } ?? ""
                let page = try await client.call(
                    .init(
                        target: "/keys:export\(query)", seconds: max(common.timeout, leastPageSeconds),
                        attempts: pageAttempts))
                let next = page.headers.first(name: "X-KV-Cursor")
                guard next == nil || next != cursor else {
                    throw Failure(.refused, "the export does not get on from \(next ?? "")")
                }
                var bytes = ByteBuffer()
                do throws(BackupError) {
                    try encoder.append(page.body, cursor: next, into: &bytes)
                } catch {
                    throw Failure(.refused, "\(error)")
                }
                try output.append(bytes)
                cursor = next
                isComplete = next == nil
                try meter.show(pairs: encoder.sum.pairs, bytes: encoder.sum.bytes)
            }
            var trailer = ByteBuffer()
            encoder.finish(into: &trailer)
            try output.append(trailer)
            try requirePlace()
            try output.rename(to: file)
            try meter.end()
            if common.json { return try Console.json(BackupReport(file, encoder.sum, nil)) }
            try Console.say(
                "\(file): \(encoder.sum.pairs) pairs, \(Figures.bytes(Double(encoder.sum.bytes)))")
        }
    }

    /// Whether the name is free, or may be taken: asked before the work, and after it.
    private func requirePlace() throws {
        var found = stat()
        guard stat(file, &found) == 0 else { return }
        guard found.st_mode & S_IFMT != S_IFDIR else { throw Failure(.refused, "\(file) is a directory") }
        guard overwrite else { throw Failure(.refused, "\(file) is there already; --overwrite takes its place") }
    }

    /// A new file's header, or where an old one goes on.
    private func begin(
        _ output: BackupFile, epoch: Epoch
    ) async throws -> (BackupEncoder, cursor: String?, isComplete: Bool) {
        if resume {
            // What is behind the last whole block was being written when it was interrupted.
            var cursor: String?
            var isComplete = false
            var last = BackupDecoder()
            do {
                _ = try await output.read { part, decoder in
                    last = decoder
                    if case .block(_, let next) = part {
                        cursor = next
                        isComplete = next == nil
                    }
                }
            } catch let failure as Failure where last.wholeBytes > 0 {
                Console.error("\(failure.message); going on behind what is whole")
            }
            if last.isWhole { throw Failure(.refused, "\(output.path) is whole; rename it to \(file)") }
            if last.wholeBytes > 0 {
                try output.cut(at: last.wholeBytes)
                return (BackupEncoder(continuing: last), cursor, isComplete)
            }
        }
        try output.cut(at: 0)
        var now = timeval()
        gettimeofday(&now, nil)
        let header = BackupHeader(
            begun: UInt64(now.tv_sec) * 1000 + UInt64(now.tv_usec) / 1000, epoch: epoch.value)
        var bytes = ByteBuffer()
        let encoder = BackupEncoder(header, into: &bytes)
        try output.append(bytes)
        return (encoder, nil, false)
    }
}

struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Looks whether a backup is whole. Asks no node.")

    @Argument(help: "The file.")
    var file: String

    @Flag(help: "Print JSON.")
    var json = false

    func run() async throws { try await VerifyCommand.verify(file, isJSON: json) }

    static func verify(_ file: String, _ common: CommonOptions) async throws {
        try await verify(file, isJSON: common.json)
    }

    private static func verify(_ file: String, isJSON: Bool) async throws {
        do {
            let (header, sum) = try await BackupFile(reading: file).verify()
            if isJSON { return try Console.json(BackupReport(file, sum, header)) }
            try Console.say("\(file): whole, \(sum.pairs) pairs, \(Figures.bytes(Double(sum.bytes)))")
        } catch let failure as Failure {
            Console.error(failure.message)
            throw ExitCode(failure.outcome.exitStatus)
        }
    }
}

struct RestoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Stores the pairs of a backup, where there is nothing newer.",
        discussion: """
            Pairs come back in the version that they had; what has been written since, or deleted within the last day, stays \
            as it is. (Older deletions are forgotten: what they deleted comes back.) The file is \
            verified first. An interrupted restore may be started again.
            """)

    @Argument(help: "The file.")
    var file: String

    @OptionGroup var common: CommonOptions

    private struct Imported: Decodable {
        let stored: Int
        let kept: Int
    }

    /// Half of what a node takes in one body.
    private static let pieceBytes = 8 << 20

    func run() async throws {
        try await common.withClient { client in
            let input = try BackupFile(reading: file)
            let (header, sum) = try await input.verify()
            var meter = TransferMeter("restoring", isJSON: common.json)
            var report = BackupReport(file, sum, header)
            var stored = 0
            var kept = 0
            let size = input.size
            // (Read, and verified, once more: what was verified before may have been changed since.)
            let decoder = try await input.read { part, decoder in
                guard case .block(let records, _) = part else { return }
                for piece in BackupRecords.pieces(of: records, upTo: RestoreCommand.pieceBytes) {
                    // (Sending it again changes nothing: versions decide.)
                    let answer: Imported = try await client.call(
                        .init(
                            method: .POST, target: "/keys:import",
                            headers: [("Content-Type", "application/octet-stream")], body: piece,
                            seconds: max(common.timeout, leastPageSeconds), attempts: pageAttempts)
                    ).decoded()
                    stored += answer.stored
                    kept += answer.kept
                }
                try meter.show(
                    pairs: decoder.sum.pairs, bytes: decoder.sum.bytes,
                    share: Double(decoder.wholeBytes) / Double(max(size, 1)))
            }
            guard decoder.isWhole else { throw Failure(.refused, "\(file) was changed while it was being restored") }
            try meter.end()
            report.stored = stored
            report.kept = kept
            if common.json { return try Console.json(report) }
            try Console.say("\(file): \(stored) pairs stored, \(kept) were as new already, or newer")
        }
    }
}
