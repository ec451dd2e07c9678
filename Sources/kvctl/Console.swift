// SPDX-License-Identifier: Apache-2.0

private import Control
private import FoundationEssentials
private import Glibc

/// Standard output and error.
enum Console {
    static var isTerminal: Bool { isatty(STDOUT_FILENO) == 1 }

    /// Of standard output, 80 where it is none or doesn't say.
    static var width: Int {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }

    /// A line to standard output.
    static func say(_ line: String) throws { try write(Array((line + "\n").utf8)) }

    /// What a command that goes on has done, to standard error.
    static func note(_ message: String) { error(message) }

    static func error(_ message: String) {
        // (Nobody is left to be told when this fails.)
        // (On a terminal it takes the place of a line that is being redrawn.)
        let start = isTerminal && isatty(STDERR_FILENO) == 1 ? "\r\u{1B}[K" : ""
        try? write(Array("\(start)kvctl: \(oneLine(message))\n".utf8), to: STDERR_FILENO)
    }

    /// An object as JSON, with its members in order of their names.
    static func json(_ object: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        try say(String(decoding: try encoder.encode(object), as: UTF8.self))
    }

    /// Redraws the line that it drew before; on a terminal only.
    static func redraw(_ line: String) throws { try write(Array("\r\u{1B}[K\(line.prefix(width - 1))".utf8)) }

    /// What was asked for is done, and this tells of it: where that fails, asking again would do it twice.
    static func tell(_ print: () throws -> Void) throws {
        do {
            try print()
        } catch let failure as Failure {
            throw Failure(.unknown, "it is done, but \(failure.message)")
        }
    }

    /// Takes the places of standard input, output and error where one is closed, lest the next file or socket that is
    /// opened become it, and be written to by whoever means to print.
    static func guardDescriptors() {
        for descriptor in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] where fcntl(descriptor, F_GETFD) < 0 {
            // (Opened so that neither can be done what it is for: that is an error then, as it should be.)
            _ = open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY)
        }
    }

    static func write(_ bytes: some Collection<UInt8>, to descriptor: CInt = STDOUT_FILENO) throws {
        let bytes = Array(bytes)
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress! + written, bytes.count - written)
            }
            if count >= 0 {
                written += count
            } else if errno != EINTR {
                // (Whoever reads through `head` goes away when it has enough.)
                throw Failure(
                    .refused, "can't write to standard output: \(String(cString: strerror(errno)))",
                    isSilent: errno == EPIPE)
            }
        }
    }

    /// All of standard input; at most so many bytes.
    static func input(upTo limit: Int) throws -> [UInt8] { try read(from: STDIN_FILENO, "standard input", upTo: limit) }

    /// All of a file.
    static func content(of path: String, upTo limit: Int) throws -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw Failure(.refused, "can't open \(path): \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        return try read(from: descriptor, path, upTo: limit)
    }

    private static func read(from descriptor: CInt, _ name: String, upTo limit: Int) throws -> [UInt8] {
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = part.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if count == 0 { return bytes }
            if count < 0 {
                if errno == EINTR { continue }
                throw Failure(.refused, "can't read \(name): \(String(cString: strerror(errno)))")
            }
            bytes += part[..<count]
            guard bytes.count <= limit else { throw Failure(.refused, "\(name) is over \(limit) bytes") }
        }
    }
}
