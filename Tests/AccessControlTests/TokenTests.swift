// SPDX-License-Identifier: Apache-2.0

import AccessControl
import Glibc
import TestSupport
import Testing

@Suite("Tokens")
struct TokenTests {
    private static let first = String(repeating: "a", count: 32)
    private static let second = "0123456789-._~+/ABCDEFGHIJKLMNOPQRSTUVWXYZ=="

    private func contains(_ tokens: TokenSet, _ text: String) -> Bool {
        Array(text.utf8).withUnsafeBytes { tokens.contains($0) }
    }

    private func admits(_ tokens: TokenSet, _ field: String) -> Bool {
        Array(field.utf8).withUnsafeBytes { tokens.admits($0) }
    }

    @Test("one a line, two at once, and each of them opens")
    func twoAtOnce() throws {
        let text = "# of the balancer\n\n \(Self.first) \r\n\(Self.second)\n"
        let tokens = AccessTokens(data: try TokenFile.tokens(in: text.utf8, of: "f"))
        let data = try #require(tokens.data)
        #expect(tokens.admin == nil && tokens.peer == nil)
        #expect(contains(data, Self.first) && contains(data, Self.second))
        for wrong in ["", Self.first + "a", String(Self.first.dropLast()), Self.first.uppercased(), " " + Self.first] {
            #expect(!contains(data, wrong), "\(wrong)")
        }
        #expect(!contains(data, String(repeating: "a", count: 10_000)))
        let copy = try #require(AccessTokens(encoded: tokens.encoded)?.data)
        #expect(contains(copy, Self.second))
    }

    @Test("what is handed to a worker has no token in it")
    func noTokenInMemory() throws {
        let token = try TokenFile.tokens(in: Self.first.utf8, of: "f")
        let tokens = AccessTokens(data: token, admin: token, peer: token)
        #expect(!String(decoding: tokens.encoded, as: UTF8.self).contains(Self.first))
        #expect(!"\(tokens)".contains(Self.first))
    }

    @Test(
        "a field is Bearer and the token, and nothing else",
        arguments: [
            ("Bearer TOKEN", true), ("bearer TOKEN", true), ("BEARER  TOKEN", true), ("BearerTOKEN", false),
            ("Basic TOKEN", false), ("TOKEN", false), ("Bearer ", false), ("Bearer", false), ("Bearer TOKEN, x", false),
            ("Bearer TOKEN ", false), ("Bearer\tTOKEN", false), ("Token TOKEN", false), ("", false),
        ])
    func field(_ text: String, isGood: Bool) throws {
        let data = try #require(AccessTokens(data: try TokenFile.tokens(in: Self.first.utf8, of: "f")).data)
        let parts = text.split(separator: "TOKEN", omittingEmptySubsequences: false)
        #expect(admits(data, parts.joined(separator: Self.first)) == isGood)
    }

    @Test(
        "a file that opens nothing has to say so",
        arguments: [
            ("", "has no token"), ("# none\n", "has no token"), ("none\nnone", "has what is no token"),
            ("short", "has what is no token"), (String(repeating: "é", count: 32), "has what is no token"),
            (String(repeating: "a", count: 257), "has what is no token"),
            (String(repeating: "a", count: 31), "has what is no token"),
            ("\(first) \(first)", "has what is no token"), ("\(first)\n\(second)\n\(first)", "has 3 tokens"),
        ])
    func refused(_ text: String, _ reason: String) {
        let error = #expect(throws: TokenFile.Failure.self) { try TokenFile.tokens(in: text.utf8, of: "/f") }
        #expect(error?.description.contains("/f \(reason)") == true, "\(error?.description ?? "")")
        #expect(error?.description.contains(Self.first) == false)
    }

    @Test("the word none says that there is none")
    func none() throws {
        #expect(try TokenFile.tokens(in: " none \n".utf8, of: "f").isEmpty)
        #expect(AccessTokens(data: try TokenFile.tokens(in: "# open\nnone".utf8, of: "f")).data == nil)
    }

    @Test("only what is right in systemd's directory is as systemd makes it")
    func credentials() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/token"
        let descriptor = open(path, O_CREAT | O_WRONLY, 0o644)
        #expect(write(descriptor, Self.first, 32) == 32 && fchmod(descriptor, 0o644) == 0)
        close(descriptor)
        func isTaken(_ path: String, _ credentials: String?) -> Bool {
            (try? AccessTokens.read(data: path, admin: nil, peer: nil, credentials: credentials)) != nil
        }
        #expect(isTaken(path, directory.path))
        let name = directory.path.split(separator: "/").last ?? ""
        for (path, credentials) in [
            (path, nil), (path, ""), (path, "/"), (path, directory.path + "/other"),
            (directory.path + "/../\(name)/token", directory.path),
            (path, String(directory.path.dropLast())),
        ] {
            #expect(!isTaken(path, credentials), "\(path) of \(credentials ?? "nowhere")")
        }
    }

    @Test("only a file that its owner alone can read is taken")
    func mode() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/token"
        let descriptor = open(path, O_CREAT | O_WRONLY, 0o600)
        #expect(write(descriptor, Self.first, 32) == 32)
        close(descriptor)
        #expect(try TokenFile.read(path, isCredential: false).count == 1)
        for mode in [0o640, 0o604, 0o620, 0o644] as [mode_t] {
            chmod(path, mode)
            let error = #expect(throws: TokenFile.Failure.self) { try TokenFile.read(path, isCredential: false) }
            #expect(error?.description.contains("can be read by others") == true)
            #expect(try TokenFile.read(path, isCredential: true).count == 1)
        }
        chmod(path, 0o600)
        if geteuid() == 0 {
            chown(path, 12345, 0)
            let error = #expect(throws: TokenFile.Failure.self) { try TokenFile.read(path, isCredential: false) }
            #expect(error?.description.contains("belongs to neither this user nor root") == true)
        }
        for other in [directory.path, directory.path + "/nothing", "/dev/null"] {
            #expect(throws: TokenFile.Failure.self) { try TokenFile.read(other, isCredential: true) }
        }
    }
}
