// SPDX-License-Identifier: Apache-2.0

/// What a `FakeMemcached` holds, and how it answers when nothing goes wrong.
struct FakeStore: Sendable {
    struct Item: Sendable {
        let value: [UInt8]
        let flags: String
        let token: UInt64
    }

    private(set) var items: [String: Item] = [:]
    private var lastToken: UInt64 = 0
    /// As it says of itself.
    var evicts = false

    /// Nil where memcached would close the connection.
    mutating func answer(_ command: FakeCommand) -> [UInt8]? {
        switch command.name {
        case "get", "gets":
            let isWithToken = command.name == "gets"
            return command.keys.flatMap { valueBlock($0, isWithToken: isWithToken) } + Array("END\r\n".utf8)
        case "set", "add", "replace", "cas": return line(store(command))
        case "delete": return line(items.removeValue(forKey: command.keys.first ?? "") == nil ? "NOT_FOUND" : "DELETED")
        case "md":
            let answer = metaDelete(command)
            let isSilent = command.words.contains("q") && ["HD", "NF"].contains(answer)
            return isSilent ? [] : line(answer)
        case "version": return line("VERSION 1.6.18")
        case "mn": return line("MN")
        case "stats": return statistics(command)
        case "lru_crawler": return dump(command)
        case "quit": return nil
        default: return line("ERROR")
        }
    }

    mutating func put(_ key: String, _ value: [UInt8]) {
        lastToken += 1
        items[key] = Item(value: value, flags: "0", token: lastToken)
    }

    mutating func remove(_ key: String) { items[key] = nil }

    func valueBlock(_ key: String, isWithToken: Bool) -> [UInt8] {
        guard let item = items[key] else { return [] }
        let token = isWithToken ? " \(item.token)" : ""
        return Array("VALUE \(key) \(item.flags) \(item.value.count)\(token)\r\n".utf8) + item.value
            + Array("\r\n".utf8)
    }

    private mutating func store(_ command: FakeCommand) -> String {
        guard command.words.count >= (command.name == "cas" ? 6 : 5) else { return "ERROR" }
        let key = command.words[1]
        guard key.utf8.count <= 250 else { return "CLIENT_ERROR bad command line format" }
        let held = items[key]
        switch command.name {
        case "add" where held != nil, "replace" where held == nil: return "NOT_STORED"
        case "cas":
            guard let held else { return "NOT_FOUND" }
            guard String(held.token) == command.words[5] else { return "EXISTS" }
        default: break
        }
        lastToken += 1
        items[key] = Item(value: command.value, flags: command.words[2], token: lastToken)
        return "STORED"
    }

    /// `md KEY [C<token>]`.
    private mutating func metaDelete(_ command: FakeCommand) -> String {
        guard let key = command.keys.first else { return "CLIENT_ERROR bad command line format" }
        guard let held = items[key] else { return "NF" }
        if let flag = command.words.first(where: { $0.hasPrefix("C") }), String(held.token) != flag.dropFirst() {
            return "EX"
        }
        items[key] = nil
        return "HD"
    }

    private func statistics(_ command: FakeCommand) -> [UInt8] {
        var lines = ["pid 1", "version 1.6.18"]
        if command.words.count > 1, command.words[1] == "settings" {
            lines = ["maxbytes 67108864", "evictions \(evicts ? "on" : "off")", "item_size_max 1048576"]
        }
        return lines.flatMap { line("STAT " + $0) } + line("END")
    }

    private func dump(_ command: FakeCommand) -> [UInt8] {
        guard command.words == ["lru_crawler", "metadump", "hash"] else { return line("ERROR") }
        var answer: [UInt8] = []
        for (key, item) in items {
            let size = key.utf8.count + item.value.count + 56
            answer += Array(
                "key=\(FakeStore.encoded(key)) exp=-1 la=1 cas=\(item.token) fetch=no cls=1 size=\(size)\n".utf8)
        }
        return answer + line("END")
    }

    /// As memcached does it: all but letters, digits, `-`, `.`, `_` and `~`.
    private static func encoded(_ key: String) -> String {
        var text = ""
        for byte in key.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: text.unicodeScalars.append(.init(byte))
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                text += "%" + (digits.utf8.count == 1 ? "0" : "") + digits
            }
        }
        return text
    }

    private func line(_ text: String) -> [UInt8] { Array((text + "\r\n").utf8) }
}
