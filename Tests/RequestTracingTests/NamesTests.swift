// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import RequestTracing
import Testing

@Suite("The names of requests")
struct NamesTests {
    @Test(
        "an id is 8 to 128 letters, digits, dots, underscores and hyphens",
        arguments: [
            ("aB3._-xy", true), (String(repeating: "a", count: 128), true),
            ("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", true),
            ("aB3._-x", false), (String(repeating: "a", count: 129), false), ("", false), ("abcdefg h", false),
            ("abcdefg\nh", false), ("abcdefgh\"", false), ("abcd,efgh", false), ("abcd:efgh", false),
            ("abcdefgé", false),
        ])
    func ids(text: String, isOne: Bool) {
        #expect(RequestID(text)?.description == (isOne ? text : nil))
    }

    private static let parent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"

    @Test(
        "a traceparent that is malformed, or all zeros, is none",
        arguments: [
            "", "00", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-1",
            "01-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01.more",
            "01-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-011",
            "0A-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "01-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7",
            "ff-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "00-0AF7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c_00f067aa0ba902b7-01",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-0g",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01-",
            " 0-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
        ])
    func malformedParents(text: String) { #expect(TraceParent(text) == nil) }

    @Test("a traceparent is written as it was read, and passed on with another span")
    func parents() throws {
        let parent = try #require(TraceParent(NamesTests.parent))
        #expect(parent.description == NamesTests.parent)
        #expect(parent.trace == "0af7651916cd43dd8448eb211c80319c" && parent.isSampled)
        #expect(parent.passed(on: 0xAB).description == "00-0af7651916cd43dd8448eb211c80319c-00000000000000ab-01")
        let unsampled = try #require(TraceParent("00-000000000000000000000000000000ff-00f067aa0ba902b7-fe"))
        #expect(!unsampled.isSampled && unsampled.trace == "000000000000000000000000000000ff")
        #expect(unsampled.passed(on: 1).description.hasSuffix("-0000000000000001-00"))
    }

    @Test(
        "of a later version what version 00 has is read, and goes on as 00",
        arguments: [("01", "01", ""), ("02", "ff", "-more-and-more"), ("fe", "00", "-"), ("cc", "fe", "-x.y")])
    func laterVersions(version: String, flags: String, rest: String) throws {
        let text = "\(version)-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-\(flags)\(rest)"
        let parent = try #require(TraceParent(text))
        let isSampled = flags == "01" || flags == "ff"
        #expect(parent.isSampled == isSampled)
        #expect(
            parent.description
                == "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-\(isSampled ? "01" : "00")")
    }

    @Test("a request that has no name is not traced")
    func nameless() {
        #expect(RequestTrace(id: nil, parent: nil) == nil)
        #expect(RequestTrace(id: nil, parent: TraceParent(NamesTests.parent)) != nil)
    }

    @Test("the nodes that were asked are noted, each once, and no more than so many")
    func nodes() throws {
        let trace = try #require(RequestTrace(id: RequestID("request-1"), parent: nil))
        let nodes = (1...20).compactMap { NodeID("10.0.0.\($0):5000") }
        for node in nodes + nodes { trace.asked(node) }
        #expect(trace.nodes == Array(nodes.prefix(Limits.tracedNodes)))
    }

    // MARK: A trace's state

    private static func members(_ count: Int, bytes: Int) -> [String] {
        (0..<count).map { number in
            let key = "k\(number)="
            return key + String(repeating: "v", count: bytes - key.utf8.count)
        }
    }

    @Test(
        "a tracestate is taken as it is, but for blanks and empty members",
        arguments: [
            ("a=1", "a=1"), ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            (" a=1 ,\tb=2\t", "a=1,b=2"), ("a=1,,b=2,", "a=1,b=2"), ("a= b", "a= b"), ("a=1:2;\"", "a=1:2;\""),
            ("1tenant@system=x", "1tenant@system=x"), ("a_-*/9=x", "a_-*/9=x"), ("a=1,a=2", "a=1,a=2"),
            (
                NamesTests.members(32, bytes: 10).joined(separator: ","),
                NamesTests.members(32, bytes: 10).joined(separator: ",")
            ),
            (String(repeating: "k", count: 256) + "=1", String(repeating: "k", count: 256) + "=1"),
        ])
    func states(field: String, text: String) throws {
        let state = try #require(TraceState(field))
        #expect(state.text == text)
        #expect(TraceState(carried: state.carried) == state && !state.carried.contains(","))
    }

    @Test(
        "one that is malformed is none",
        arguments: [
            "", ",", " ", "a", "a=", "=1", "A=1", "1=1", "a=1,b", "a=1=2", "a=\u{7F}", "a=é", "a=1\n", "a@=1",
            "a@1=1", "@a=1", "a@b@c=1", "a b=1", "a@" + String(repeating: "s", count: 15) + "=1",
            String(repeating: "t", count: 242) + "@s=1", String(repeating: "k", count: 257) + "=1",
            "a=" + String(repeating: "v", count: 257), NamesTests.members(33, bytes: 5).joined(separator: ","),
        ])
    func malformedStates(field: String) { #expect(TraceState(field) == nil) }

    @Test("of too much the long members are left out, and then the last")
    func longStates() {
        let short = NamesTests.members(4, bytes: 100)
        let long = NamesTests.members(6, bytes: 129)[4...]
        #expect(TraceState((long + short).joined(separator: ","))?.text == short.joined(separator: ","))
        let many = NamesTests.members(6, bytes: 120)
        #expect(TraceState(many.joined(separator: ","))?.text == many[..<4].joined(separator: ","))
        #expect(TraceState(NamesTests.members(4, bytes: 128).joined(separator: ","))?.text.utf8.count == 386)
        for count in 1...32 {
            for bytes in [8, 64, 128, 250] {
                let text = TraceState(NamesTests.members(count, bytes: bytes).joined(separator: ","))?.text ?? ""
                #expect(text.utf8.count <= Limits.traceStateBytes && !text.isEmpty)
            }
        }
    }

    @Test("the state of a trace that nobody samples is not looked at")
    func unsampledState() throws {
        for (flags, isTaken) in [("00", false), ("01", true)] {
            let parent = TraceParent("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-\(flags)")
            let trace = try #require(RequestTrace(id: nil, parent: parent, state: TraceState("a=1")))
            #expect((trace.state != nil) == isTaken)
        }
        #expect(RequestTrace(id: nil, parent: nil, state: TraceState("a=1")) == nil)
    }

    // MARK: What a batch carries

    @Test("a batch names its requests, and the other node reads the same ones")
    func carried() throws {
        let parent = try #require(TraceParent(NamesTests.parent))
        let ids = [RequestID("request-1"), nil, RequestID("request-3")]
        let parents = [nil, parent, parent]
        var field = CarriedRequestField()
        for (id, parent) in zip(ids, parents) {
            let trace = try #require(RequestTrace(id: id, parent: parent))
            // (Two operations of one request.)
            field.add(trace, nil)
            field.add(trace, nil)
        }
        #expect(field.text == "request-1,:\(parent),request-3:\(parent)")
        #expect(field.spans.isEmpty)
        let received = try #require(RequestTrace(id: nil, parent: nil, carried: field.text)).requests
        #expect(received.map(\.id) == ids && received.map(\.parent) == parents)
    }

    @Test("what a batch carries has a bound in number and in bytes", arguments: [8, 36, 128])
    func bounds(idBytes: Int) throws {
        var field = CarriedRequestField()
        for number in 0..<1000 {
            let digits = String(number)
            let id = String(repeating: "0", count: idBytes - digits.utf8.count) + digits
            field.add(try #require(RequestTrace(id: RequestID(id), parent: nil)), nil)
        }
        let count = min(Limits.carriedRequests, (Limits.carriedRequestBytes + 1) / (idBytes + 1))
        #expect(field.text.utf8.count <= Limits.carriedRequestBytes)
        #expect(CarriedRequest.list(field.text).count == count)
    }

    @Test(
        "of what is malformed the rest is read, and never more than the bound",
        arguments: [
            ("", 0), (",,,", 0), ("short,request-1", 1), ("request-1:nothing", 1), (":nothing", 0), ("request-1,", 1),
            ("request\u{1}1,request-2", 1),
        ])
    func malformedFields(field: String, count: Int) {
        #expect(CarriedRequest.list(field).count == count)
        let long = (0..<10_000).map { "request-\($0)" }.joined(separator: ",")
        #expect(CarriedRequest.list(long).count <= Limits.carriedRequests)
    }
}
