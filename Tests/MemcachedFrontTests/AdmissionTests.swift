// SPDX-License-Identifier: Apache-2.0

import AccessControl
import MemcachedFront
import Testing

@Suite("Clients of memcached's show a token")
struct AdmissionTests {
    private static let good = String(repeating: "a", count: 32)
    private static let other = String(repeating: "b", count: 32)

    private func connection() throws -> TestConnection {
        let tokens = try TokenFile.tokens(in: "\(Self.good)\n\(Self.other)".utf8, of: "f")
        return try TestConnection(tokens: AccessTokens(data: tokens).data)
    }

    private func login(_ credentials: String) -> String {
        "set any 0 0 \(credentials.utf8.count)\r\n\(credentials)\r\n"
    }

    @Test("as user and password in a first set; then all goes as without", arguments: [good, other])
    func admitted(_ token: String) throws {
        let client = try connection()
        #expect(client.ask(login("somebody \(token)")) == "STORED\r\n")
        #expect(client.ask("get any\r\n") == "END\r\n")
        #expect(client.ask("set a 0 0 1\r\n1\r\nget a\r\n") == "STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n")
    }

    @Test("also in one piece with what follows, or byte by byte")
    func pipelined() throws {
        let text = login("u \(Self.good)") + "set a 0 0 1\r\n1\r\nget a\r\n"
        let wanted = "STORED\r\nSTORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n"
        #expect(try connection().ask(text) == wanted)
        let client = try connection()
        #expect(text.map { client.ask(String($0)) }.joined() == wanted)
    }

    @Test(
        "nobody else is served, nor given a second try",
        arguments: [
            "get a\r\n", "version\r\n", "stats\r\n", "mn\r\n", "add any 0 0 34\r\nu \(good)\r\n", "delete a\r\n",
            "ms any 34\r\nu \(good)\r\n", "set any 0 0 32\r\n\(good)\r\n", "set any 0 0 35\r\nu  \(good)\r\n",
            "set any 0 0 35\r\nu \(good)b\r\n", "set any 0 0 0\r\n\r\n", "get any\r\n",
            "set any 0 0 34\r\nu \(String(repeating: "c", count: 32))\r\n", "nonsense\r\n", "\r\n", "get\r\n",
            "set any 0 0 x\r\n", "set any 0 0 600\r\n\(String(repeating: "x", count: 600))\r\n",
            String(repeating: "x", count: 3000),
        ])
    func refused(_ text: String) throws {
        let client = try connection()
        let answer = client.ask(text)
        #expect(answer.hasPrefix("CLIENT_ERROR ") && answer.hasSuffix("\r\n"), "\(answer)")
        #expect(client.ask(login("u \(Self.good)") + "get a\r\n") == "", "the connection is over")
    }

    @Test("no more is kept of a stranger than credentials take")
    func bounded() throws {
        let client = try connection()
        let long = String(repeating: "x", count: 100_000)
        #expect(client.ask(login(long)) == "CLIENT_ERROR authentication failure\r\n")
        #expect(client.front.heldBytes == 0)
    }
}
