// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
private import NIOCore

/// An error as programs read it (RFC 9457).
private struct ProblemDetails: Encodable {
    /// No more is to be known of it than its status says.
    let type = "about:blank"
    let title: String
    let status: UInt16
    /// One sentence: what is wrong, and what to do.
    let detail: String
    /// What became of the request, as `X-KV-Outcome` says it.
    let outcome: String?
}

extension Answer {
    /// The one error that comes by the thousand.
    private static let noPairProblem = ErrorAnswer.noPair.madeProblem

    /// The same with its line of text as problem details, where it is an error.
    var asProblem: Answer { self == ErrorAnswer.noPair ? Answer.noPairProblem : madeProblem }

    /// An error's text, without the line's end.
    var line: String {
        let text = String(buffer: body)
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }

    private var madeProblem: Answer {
        guard status.rawValue >= 400, contentType == .text else { return self }
        let details = ProblemDetails(
            title: String(status.reasonPhrase), status: status.rawValue,
            detail: line, outcome: outcome?.headerValue.description)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let json = try? encoder.encode(details) else { return self }
        var answer = self
        answer.contentType = .problem
        answer.body = ByteBuffer(bytes: json)
        return answer
    }
}
