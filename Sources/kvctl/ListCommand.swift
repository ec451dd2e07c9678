// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Control
private import FoundationEssentials

/// Pages through `GET /keys`, and prints as the pages come.
struct ListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Lists keys, in the order of the ring.",
        discussion: """
            A key a line, with every byte that is no printable character, and the backslash, as \\xHH; with --json an \
            object a line, with version, bytes, contentType and expires.
            """)

    @Option(help: ArgumentHelp("Only those that begin with this.", valueName: "text"))
    var prefix: String?

    @Option(help: ArgumentHelp("So many at most.", valueName: "number"))
    var limit: Int?

    @OptionGroup var common: CommonOptions

    private static let pageKeys = 1000

    private struct Page: Decodable {
        let keys: [Key]
        let cursor: String?
    }

    private struct Key: Codable {
        let key: String?
        let keyBase64: String?
        let version: String?
        let bytes: Int?
        let contentType: String?
        let expires: UInt64?

        var name: [UInt8] { key.map { Array($0.utf8) } ?? Array(Data(base64Encoded: keyBase64 ?? "") ?? Data()) }
    }

    func validate() throws {
        if let limit, limit < 1 { throw ValidationError("--limit takes a number from 1 up.") }
    }

    func run() async throws {
        try await common.withClient { client in
            var left = limit ?? .max
            var cursor: String?
            repeat {
                var query = ["limit=\(min(left, ListCommand.pageKeys))"]
                if let prefix { query.append("prefix=\(PercentEncoding.encode(prefix))") }
                if let cursor { query.append("cursor=\(PercentEncoding.encode(cursor))") }
                let page: Page = try await client.call(.init(target: "/keys?\(query.joined(separator: "&"))")).decoded()
                for key in page.keys.prefix(left) {
                    if common.json { try Console.json(key) } else { try Console.say(printable(key.name)) }
                }
                left -= min(page.keys.count, left)
                if let next = page.cursor, next == cursor, page.keys.isEmpty {
                    throw Failure(.refused, "the listing does not get on from \(next)")
                }
                cursor = page.cursor
            } while cursor != nil && left > 0
        }
    }
}
