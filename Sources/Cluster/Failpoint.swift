// SPDX-License-Identifier: Apache-2.0

private import Glibc
private import Synchronization

/// Places in the code where a test can make this process die, stop, wait or fail. Off unless the configuration allows
/// them; then `KV_FAILPOINTS`, or a file that is read again at each hit, says what happens where:
///
///     ring.announce.crossing=kill; ring.job.copy.batch=sleep:200; http.beforeApply=error after 3
///
/// `kill` and `stop` send this process SIGKILL and SIGSTOP, `sleep:ms` waits, `hold:FILE` waits while FILE exists,
/// `error` makes the caller fail. `after N` lets the first N hits pass.
package final class Failpoints: Sendable {
    /// What the caller has to do; everything else has been done by the time it is told.
    package enum Verdict: Sendable {
        case pass
        case fail
    }

    /// The caller's part of an `error`.
    package struct Injected: Error, Sendable {
        package let name: String
    }

    private enum Deed: Hashable {
        case kill
        case stop
        case sleep(milliseconds: Int)
        case hold(file: String)
        case error
    }

    private struct Rule {
        let deed: Deed
        let after: Int
    }

    private let isEnabled: Bool
    private let fixedRules: [String: String]
    private let file: String?
    private let hits = Mutex<[String: Int]>([:])

    package static let disabled = Failpoints(isAllowed: false, text: nil, file: nil)

    /// - Parameters:
    ///   - isAllowed: the test flag of the configuration; without it nothing here ever happens.
    ///   - text: `KV_FAILPOINTS`.
    ///   - file: read again at each hit, so that a test can change its mind.
    package init(isAllowed: Bool, text: String?, file: String?) {
        self.isEnabled = isAllowed && (text?.isEmpty == false || file != nil)
        self.fixedRules = Failpoints.split(text ?? "")
        self.file = file
    }

    /// For the control plane: waits without holding a thread.
    package func hit(_ name: String) async throws(Injected) {
        guard isEnabled, let deed = due(name) else { return }
        switch deed {
        case .kill: kill(getpid(), SIGKILL)
        case .stop: kill(getpid(), SIGSTOP)
        case .sleep(let milliseconds): try? await Task.sleep(for: .milliseconds(milliseconds))
        case .hold(let file):
            while access(file, F_OK) == 0, !Task.isCancelled { try? await Task.sleep(for: .milliseconds(20)) }
        case .error: throw Injected(name: name)
        }
    }

    /// For the data plane: `sleep` and `hold` stop the whole event loop, as a stuck one would.
    package func hitNow(_ name: String) -> Verdict {
        guard isEnabled, let deed = due(name) else { return .pass }
        switch deed {
        case .kill: kill(getpid(), SIGKILL)
        case .stop: kill(getpid(), SIGSTOP)
        case .sleep(let milliseconds): usleep(UInt32(milliseconds) * 1000)
        case .hold(let file): while access(file, F_OK) == 0 { usleep(20_000) }
        case .error: return .fail
        }
        return .pass
    }

    private func due(_ name: String) -> Deed? {
        let rules = file.flatMap(Failpoints.read).map(Failpoints.split) ?? fixedRules
        guard let rule = rules[name].flatMap(Failpoints.parse) else { return nil }
        let count = hits.withLock { hits in
            hits[name, default: 0] += 1
            return hits[name, default: 0]
        }
        return count > rule.after ? rule.deed : nil
    }

    private static func split(_ text: String) -> [String: String] {
        var rules: [String: String] = [:]
        for part in text.split(whereSeparator: { $0 == ";" || $0 == "\n" }) {
            let sides = part.split(separator: "=", maxSplits: 1)
            guard sides.count == 2 else { continue }
            rules[trimmed(sides[0])] = trimmed(sides[1])
        }
        return rules
    }

    private static func parse(_ text: String) -> Rule? {
        var words = text.split(separator: " ").map(String.init)
        var after = 0
        if words.count == 3, words[1] == "after", let count = Int(words[2]) {
            after = count
            words.removeLast(2)
        }
        guard words.count == 1 else { return nil }
        let parts = words[0].split(separator: ":", maxSplits: 1).map(String.init)
        switch (parts[0], parts.count > 1 ? parts[1] : nil) {
        case ("kill", nil): return Rule(deed: .kill, after: after)
        case ("stop", nil): return Rule(deed: .stop, after: after)
        case ("error", nil): return Rule(deed: .error, after: after)
        case ("sleep", let argument?): return Int(argument).map { Rule(deed: .sleep(milliseconds: $0), after: after) }
        case ("hold", let argument?): return Rule(deed: .hold(file: argument), after: after)
        default: return nil
        }
    }

    private static func trimmed(_ text: some StringProtocol) -> String {
        String(text.drop { $0 == " " }.reversed().drop { $0 == " " || $0 == "\r" }.reversed())
    }

    private static func read(_ path: String) -> String? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 16 << 10)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
