// SPDX-License-Identifier: Apache-2.0

import Logging
import Supervision
import Synchronization
import Testing

/// Collects lines.
final class LineSink: Sendable {
    private let collected = Mutex<[String]>([])

    func add(_ line: String) { collected.withLock { $0.append(line) } }

    var lines: [String] { collected.withLock { $0 } }
}

@Suite("Log lines")
struct LogLineTests {
    private func logger(
        _ format: ServerConfiguration.LogFormat, isJournal: Bool = false
    ) -> (logger: Logger, sink: LineSink) {
        let sink = LineSink()
        let logger = Logger(label: "test") { _ in
            LogLineHandler(format, level: .info, isJournal: isJournal, write: { sink.add($0) })
        }
        return (logger, sink)
    }

    @Test("text: the time, the level, the message, and the metadata by name")
    func text() throws {
        var (logger, sink) = logger(.text)
        logger[metadataKey: "worker.slot"] = "3"
        logger.warning("no ring", metadata: ["ring.epoch": "7", "error": "it's gone", "empty": ""])
        let line = try #require(sink.lines.first)
        #expect(line.hasSuffix("Z warning no ring empty=\"\" error=\"it's gone\" ring.epoch=7 worker.slot=3\n"))
        #expect(line.utf8.count { $0 == UInt8(ascii: "T") } == 1)
    }

    @Test("in the journal: the priority in front, and no time")
    func journal() {
        let (logger, sink) = logger(.text, isJournal: true)
        logger.info("one")
        logger.error("two")
        #expect(sink.lines == ["<6>info one\n", "<3>error two\n"])
    }

    @Test("below the level, nothing")
    func level() {
        let (logger, sink) = logger(.text)
        logger.debug("quiet")
        #expect(sink.lines.isEmpty)
    }

    @Test(
        "nothing that is logged can end its line or look like another field", arguments: [false, true],
        [
            "a\nerror forged", "a\r\nb", "a\u{2028}b", "a\u{85}b", "\u{1b}[31m", "x\" ring.epoch=9", "tab\t\0",
            "back\\slash",
        ])
    func injection(_ isJSON: Bool, _ hostile: String) throws {
        let (logger, sink) = logger(isJSON ? .json : .text, isJournal: true)
        logger.info("message", metadata: ["peer.node": "\(hostile)", "key\nwith=line": "x"])
        logger.info("\(hostile)")
        #expect(sink.lines.count == 2)
        for line in sink.lines {
            #expect(line.hasSuffix("\n"))
            let body = line.dropLast()
            #expect(body.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) })
            #expect(!body.unicodeScalars.contains("\u{2028}"))
        }
        if !isJSON { #expect(!sink.lines[0].contains(" ring.epoch=9\n")) }
    }

    @Test("JSON: one object a line")
    func json() throws {
        let (logger, sink) = logger(.json)
        logger.info("hello", metadata: ["peer.node": "a\"b", "level": "not this one"])
        let line = try #require(sink.lines.first)
        #expect(line.hasPrefix(#"{"time":""#))
        #expect(line.hasSuffix(#"","level":"info","message":"hello","peer.node":"a\"b"}"# + "\n"))
    }

    @Test("a line that is too long is cut")
    func longLine() throws {
        let (logger, sink) = logger(.text)
        logger.info("\(String(repeating: "x", count: 1 << 20))")
        #expect(try #require(sink.lines.first).utf8.count < 9000)
    }
}
