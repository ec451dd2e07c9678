// SPDX-License-Identifier: Apache-2.0

import Etcd
import FoundationEssentials
import NIOCore
import Testing

/// What is said to etcd's gateway, and what etcd 3.4 has answered.
struct EtcdCodecTests {
    private func text(_ transaction: EtcdTransaction) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(transaction), as: UTF8.self)
    }

    private func answer(_ text: String) throws -> EtcdTransactionAnswer {
        try JSONDecoder().decode(EtcdTransactionAnswer.self, from: Data(text.utf8))
    }

    // MARK: Transactions

    @Test("keys and values are base64, numbers are text")
    func request() throws {
        let transaction = EtcdTransaction(
            if: [
                .isAbsent(key: "holder"), .holds(key: "holder", Data("hello".utf8)),
                .wasChangedLast(key: "ring", at: 9_007_199_254_740_993),
            ],
            then: [.put(key: "holder", Data("hello".utf8), lease: 2_324_035_615_325_586_186), .get(key: "ring")],
            else: [.put(key: "ring", Data(), lease: nil)])
        #expect(
            try text(transaction) == #"{"compare":["#
                + #"{"create_revision":"0","key":"aG9sZGVy","result":"EQUAL","target":"CREATE"},"#
                + #"{"key":"aG9sZGVy","result":"EQUAL","target":"VALUE","value":"aGVsbG8="},"#
                + #"{"key":"cmluZw==","mod_revision":"9007199254740993","result":"EQUAL","target":"MOD"}],"#
                + #""failure":[{"request_put":{"key":"cmluZw==","value":""}}],"#
                + #""success":[{"request_put":{"key":"aG9sZGVy","lease":"2324035615325586186","value":"aGVsbG8="}},"#
                + #"{"request_range":{"key":"cmluZw=="}}]}"#)
    }

    @Test("a transaction that was done")
    func done() throws {
        let answer = try answer(
            #"{"header":{"cluster_id":"324952591200643719","member_id":"3319814642761637952","revision":"3","#
                + #""raft_term":"2"},"succeeded":true,"responses":[{"response_put":{"header":{"revision":"3"}}}]}"#)
        #expect(answer == EtcdTransactionAnswer(succeeded: true, revision: 3, pairs: []))
    }

    @Test("one whose conditions did not hold, and what was found")
    func notDone() throws {
        let answer = try answer(
            #"{"header":{"cluster_id":"324952591200643719","member_id":"3319814642761637952","revision":"3","#
                + #""raft_term":"2"},"responses":[{"response_range":{"header":{"revision":"3"},"kvs":[{"key":"aG9sZGVy","#
                + #""create_revision":"3","mod_revision":"3","version":"1","value":"aGVsbG8=","#
                + #""lease":"2324035615325586186"}],"count":"1"}},{"response_range":{"header":{"revision":"3"},"#
                + #""kvs":[{"key":"cmluZw==","create_revision":"2","mod_revision":"2","version":"1","#
                + #""value":"aGVsbG8="}],"count":"1"}}]}"#)
        #expect(!answer.succeeded && answer.revision == 3)
        #expect(answer.pair("holder") == EtcdPair(key: "holder", value: Data("hello".utf8), modRevision: 3))
        #expect(answer.pair("ring")?.modRevision == 2)
        #expect(answer.pair("other") == nil)
    }

    @Test("a key that is not there")
    func nothingFound() throws {
        let answer = try answer(
            #"{"header":{"revision":"1"},"succeeded":true,"responses":[{"response_range":{"header":{"revision":"1"}}}]}"#
        )
        #expect(answer == EtcdTransactionAnswer(succeeded: true, revision: 1, pairs: []))
    }

    @Test(
        "what is no answer of etcd's is refused",
        arguments: [
            #"{}"#, #"{"header":{"revision":"many"}}"#, #"[]"#,
            #"{"header":{"revision":"1"},"responses":[{"response_range":{"kvs":[{"key":"no base64!"}]}}]}"#,
        ])
    func unreadable(_ text: String) {
        #expect(throws: DecodingError.self) { try answer(text) }
    }

    // MARK: Watches

    private static let watched =
        #"{"result":{"header":{"cluster_id":"324952591200643719","revision":"5","raft_term":"2"},"created":true}}"#
        + "\n"
        + #"{"result":{"header":{"revision":"5"},"events":[{"kv":{"key":"cmluZw==","create_revision":"2","#
        + #""mod_revision":"2","version":"1","value":"aGVsbG8="}},{"type":"DELETE","kv":{"key":"cmluZw==","#
        + #""mod_revision":"4"}}]}}"# + "\n"
        + #"{"result":{"header":{"revision":"6"},"events":[{"kv":{"key":"cmluZw==","mod_revision":"6"}}]}}"# + "\n"

    @Test("changes come in order, however the bytes are cut", arguments: [1, 2, 7, 64, 1000])
    func watch(_ size: Int) throws {
        var stream = EtcdWatchStream(lineLimit: 1000)
        var rest = ByteBuffer(string: EtcdCodecTests.watched)
        var changes: [EtcdPair] = []
        while let piece = rest.readSlice(length: min(size, rest.readableBytes)), piece.readableBytes > 0 {
            changes += try stream.received(piece)
        }
        #expect(changes.map(\.modRevision) == [2, 4, 6])
        #expect(changes.map(\.value) == [Data("hello".utf8), Data(), Data()])
    }

    @Test(
        "a watch that etcd ends",
        arguments: [
            #"{"result":{"header":{"revision":"9"},"canceled":true,"compact_revision":"8"}}"#,
            #"{"error":{"grpc_code":14,"http_code":503,"message":"no leader","http_status":"Service Unavailable"}}"#,
            #"{"error":"#,
        ])
    func watchEnds(_ line: String) {
        var stream = EtcdWatchStream(lineLimit: 1000)
        #expect(throws: EtcdError.self) { try stream.received(ByteBuffer(string: line + "\n")) }
    }

    @Test("a line without end is not kept")
    func watchLimit() throws {
        var stream = EtcdWatchStream(lineLimit: 10)
        #expect(try stream.received(ByteBuffer(string: "0123456789")).isEmpty)
        #expect(throws: EtcdError.self) { try stream.received(ByteBuffer(string: "a")) }
    }

    // MARK: Members

    @Test(
        "members are addresses without paths",
        arguments: [
            "http://127.0.0.1:2379", "https://etcd-1.example.org:2379", "http://[fd00::7]:2379",
        ])
    func endpoint(_ text: String) { #expect(EtcdEndpoint(text)?.description == text) }

    @Test(
        "what is none",
        arguments: [
            "", "127.0.0.1:2379", "http://127.0.0.1", "http://127.0.0.1:0", "http://127.0.0.1:65536", "http://:2379",
            "http://a:2379/", "http://a b:2379", "ftp://a:2379", "http://[fd00::7:2379", "http://user@a:2379",
            "http://a:23a9", "http://a:+237",
        ])
    func noEndpoint(_ text: String) { #expect(EtcdEndpoint(text) == nil) }

    @Test("several of them, each once")
    func endpoints() {
        #expect(EtcdEndpoint.list("http://a:1, http://b:2")?.map(\.description) == ["http://a:1", "http://b:2"])
        for text in ["", "http://a:1,", "http://a:1,http://a:1", "http://a:1;http://b:2"] {
            #expect(EtcdEndpoint.list(text) == nil)
        }
    }
}
