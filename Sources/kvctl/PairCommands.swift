// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Control
private import FoundationEssentials
private import HashRing
private import KeyValue
internal import NIOCore
private import NIOHTTP1

/// `--if-match` and `--if-none-match`.
struct ConditionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Only where the pair is in this version, or, with *, where there is one.", valueName: "version"))
    var ifMatch: String?

    @Option(help: ArgumentHelp("Only where it is not, or, with *, where there is none.", valueName: "version"))
    var ifNoneMatch: String?

    func validate() throws {
        try requireFieldValue(ifMatch, of: "--if-match")
        try requireFieldValue(ifNoneMatch, of: "--if-none-match")
    }

    var headers: [(String, String)] {
        func tag(_ text: String) -> String { text == "*" || text.contains("\"") ? text : "\"\(text)\"" }
        return [("If-Match", ifMatch), ("If-None-Match", ifNoneMatch)].compactMap { name, text in
            text.map { (name, tag($0)) }
        }
    }
}

/// What could not be sent as a header field's value is wrong usage, and nothing is sent.
private func requireFieldValue(_ text: String?, of option: String) throws {
    guard text?.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) ?? true else {
        throw ValidationError("\(option) takes no control characters.")
    }
}

private func target(of key: String) throws -> String {
    guard (1...Limits.keyBytes).contains(key.utf8.count) else {
        throw ValidationError("A key has from 1 to \(Limits.keyBytes) bytes.")
    }
    return "/keys/\(PercentEncoding.encode(key))"
}

struct GetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get", abstract: "Prints a value, its bytes as they are.",
        discussion: "Where there is no such pair, it prints nothing and ends with 4.")

    @Argument(help: "The key.")
    var key: String

    @OptionGroup var common: CommonOptions

    private struct Found: Encodable {
        let key: String
        let version: String?
        let contentType: String?
        let value: String?
        let valueBase64: String?
    }

    func run() async throws {
        let target = try target(of: key)
        try await common.withClient { client in
            let answer = try await client.pair(.init(target: target))
            guard common.json else { return try Console.write(answer.body.readableBytesView) }
            let text = String(validating: answer.body.readableBytesView, as: UTF8.self)
            try Console.json(
                Found(
                    key: key, version: answer.version, contentType: answer.headers.first(name: "Content-Type"),
                    value: text,
                    valueBase64: text == nil ? Data(answer.body.readableBytesView).base64EncodedString() : nil))
        }
    }
}

struct PutCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "put", abstract: "Stores a value: an argument, a file, or standard input.",
        discussion:
            "Prints nothing, or the version with --json. It is sent once; where it ends with 3, it may be stored.")

    @Argument(help: "The key.")
    var key: String

    @Argument(help: "The value; without it and --file, standard input.")
    var value: String?

    @Option(help: ArgumentHelp("Take the value from there.", valueName: "path"))
    var file: String?

    @Option(help: ArgumentHelp("After this it is missing.", valueName: "seconds"))
    var ttl: Int?

    @Option(help: ArgumentHelp("What a GET says of it.", valueName: "type"))
    var contentType: String?

    @OptionGroup var condition: ConditionOptions
    @OptionGroup var common: CommonOptions

    /// What no node would take; so that standard input has an end.
    private static let largestValueBytes = 64 << 20

    func validate() throws {
        if value != nil, file != nil { throw ValidationError("The value is an argument or a --file, not both.") }
        if let ttl, !(1...Limits.timeToLiveSeconds).contains(ttl) {
            throw ValidationError("--ttl takes seconds, from 1 to \(Limits.timeToLiveSeconds).")
        }
        try requireFieldValue(contentType, of: "--content-type")
    }

    func run() async throws {
        let target = try target(of: key) + (ttl.map { "?ttl=\($0)" } ?? "")
        try await common.withClient { client in
            let bytes: [UInt8]
            if let value {
                bytes = Array(value.utf8)
            } else if let file {
                bytes = try Console.content(of: file, upTo: PutCommand.largestValueBytes)
            } else {
                bytes = try Console.input(upTo: PutCommand.largestValueBytes)
            }
            let answer = try await client.pair(
                .init(
                    method: .PUT, target: target,
                    headers: condition.headers + (contentType.map { [("Content-Type", $0)] } ?? []),
                    body: ByteBuffer(bytes: bytes), isRepeatable: false))
            if common.json { try Console.tell { try Console.json(Written(key: key, version: answer.version)) } }
        }
    }
}

private struct Written: Encodable {
    let key: String
    let version: String?
}

struct DeleteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Takes a pair away, whether there was one or not.")

    @Argument(help: "The key.")
    var key: String

    @OptionGroup var condition: ConditionOptions
    @OptionGroup var common: CommonOptions

    func run() async throws {
        let target = try target(of: key)
        try await common.withClient { client in
            let answer = try await client.pair(
                .init(method: .DELETE, target: target, headers: condition.headers, isRepeatable: false))
            if common.json { try Console.tell { try Console.json(Written(key: key, version: answer.version)) } }
        }
    }
}

struct IncrementCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "incr", abstract: "Adds to a counter and prints what it is now.",
        discussion: "A negative number goes behind --by= (kvctl incr visits --by=-5).")

    @Argument(help: "The key.")
    var key: String

    @Option(help: ArgumentHelp("What is added.", valueName: "number"))
    var by: Int64 = 1

    @OptionGroup var common: CommonOptions

    private struct Counted: Encodable {
        let key: String
        let value: Int64?
        let version: String?
    }

    func run() async throws {
        let target = try target(of: key)
        try await common.withClient { client in
            let answer = try await client.pair(
                .init(method: .POST, target: "\(target):increment?by=\(by)", isRepeatable: false))
            try Console.tell {
                guard common.json else { return try Console.say(answer.text) }
                try Console.json(Counted(key: key, value: Int64(answer.text), version: answer.version))
            }
        }
    }
}
