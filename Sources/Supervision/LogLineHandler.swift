// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
private import Glibc
package import Logging

/// Writes each record as one line to standard error, as text or as JSON. Whatever a message or a value holds, it stays
/// on its line.
package struct LogLineHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var logLevel: Logger.Level
    private let format: ServerConfiguration.LogFormat
    /// Whether standard error is the journal, which has the time already and takes the priority from the line's start.
    private let isJournal: Bool
    private let write: @Sendable (String) -> Void

    /// A longer line is cut.
    private static let lineBytes = 8 << 10

    /// - Parameter write: gets each line with its end; standard error by default.
    package init(
        _ format: ServerConfiguration.LogFormat, level: Logger.Level, isJournal: Bool,
        write: @escaping @Sendable (String) -> Void = LogLineHandler.writeToStandardError
    ) {
        self.format = format
        self.logLevel = level
        self.isJournal = isJournal
        self.write = write
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var fields = metadata
        for (key, value) in event.metadata ?? [:] { fields[key] = value }
        let pairs = fields.sorted { $0.key < $1.key }.map { ($0.key, "\($0.value)") }
        var line = isJournal ? "<\(LogLineHandler.priority(event.level))>" : ""
        switch format {
        case .text: line += text(event, pairs)
        case .json: line += json(event, pairs)
        }
        if line.utf8.count > LogLineHandler.lineBytes {
            line = String(decoding: line.utf8.prefix(LogLineHandler.lineBytes), as: UTF8.self) + "…"
        }
        write(line + "\n")
    }

    // MARK: The line

    private func text(_ event: LogEvent, _ pairs: [(String, String)]) -> String {
        var line = isJournal ? "" : LogLineHandler.timestamp() + " "
        line += event.level.rawValue + " " + LogLineHandler.escaped("\(event.message)")
        for (key, value) in pairs {
            let isPlain = !value.isEmpty && value.unicodeScalars.allSatisfy(LogLineHandler.isPlain)
            line += " \(LogLineHandler.escaped(key))="
            line += isPlain ? value : "\"" + LogLineHandler.escaped(value) + "\""
        }
        return line
    }

    private func json(_ event: LogEvent, _ pairs: [(String, String)]) -> String {
        var fields = [
            ("time", LogLineHandler.timestamp()), ("level", event.level.rawValue), ("message", "\(event.message)"),
        ]
        fields += pairs.filter { pair in !fields.contains { $0.0 == pair.0 } }
        return "{"
            + fields.map { "\"\(LogLineHandler.escaped($0.0))\":\"\(LogLineHandler.escaped($0.1))\"" }
            .joined(separator: ",") + "}"
    }

    private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        scalar.isASCII && (0x21...0x7e).contains(scalar.value) && scalar != "\"" && scalar != "\\" && scalar != "="
    }

    /// As JSON has it: quotes, backslashes and all that could end a line or steer a terminal.
    private static func escaped(_ text: String) -> String {
        var escaped = ""
        escaped.reserveCapacity(text.utf8.count)
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": escaped += "\\\""
            case "\\": escaped += "\\\\"
            case "\n": escaped += "\\n"
            case "\r": escaped += "\\r"
            case "\t": escaped += "\\t"
            default:
                // Controls (C0, DEL, C1) and the line and paragraph separators.
                if scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value)
                    || (0x2028...0x2029).contains(scalar.value)
                {
                    let digits = String(scalar.value, radix: 16)
                    escaped += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                } else {
                    escaped.unicodeScalars.append(scalar)
                }
            }
        }
        return escaped
    }

    /// RFC 3339 with milliseconds, in UTC.
    private static func timestamp() -> String {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        var parts = tm()
        gmtime_r(&now.tv_sec, &parts)
        func padded(_ number: some BinaryInteger, _ width: Int) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(width - digits.utf8.count, 0)) + digits
        }
        let day = "\(padded(parts.tm_year + 1900, 4))-\(padded(parts.tm_mon + 1, 2))-\(padded(parts.tm_mday, 2))"
        let time = "\(padded(parts.tm_hour, 2)):\(padded(parts.tm_min, 2)):\(padded(parts.tm_sec, 2))"
        return "\(day)T\(time).\(padded(now.tv_nsec / 1_000_000, 3))Z"
    }

    /// syslog's priorities, as in sd-daemon(3).
    private static func priority(_ level: Logger.Level) -> Int {
        switch level {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }

    // MARK: Standard error

    /// In one call, so that processes that share the file don't mix their lines.
    package static func writeToStandardError(_ line: String) {
        var line = line
        line.withUTF8 { bytes in
            var offset = 0
            while offset < bytes.count {
                let count = Glibc.write(STDERR_FILENO, bytes.baseAddress?.advanced(by: offset), bytes.count - offset)
                // Where even that fails there is nobody left to tell.
                guard count > 0 || errno == EINTR else { return }
                offset += max(count, 0)
            }
        }
    }

    /// Whether standard error is the stream that `JOURNAL_STREAM` (`device:inode`) names; see systemd.exec(5).
    package static func isJournal(_ journalStream: String?) -> Bool {
        guard let journalStream else { return false }
        var information = stat()
        guard fstat(STDERR_FILENO, &information) == 0 else { return false }
        return journalStream == "\(information.st_dev):\(information.st_ino)"
    }
}
