// SPDX-License-Identifier: Apache-2.0

import AccessControl
import HashRing
import Logging
import Supervision
import Testing

@Suite("Configuration")
struct ServerConfigurationTests {
    private func layer(json: String) throws -> ConfigurationLayer {
        try ConfigurationLayer(json: json.utf8, path: "kvserver.json")
    }

    @Test("flags beat the environment, which beats the file, which beats the defaults")
    func precedence() throws {
        let file = try layer(
            json: #"{"node": "127.0.0.11:5000", "workers": 2, "drainSeconds": 3, "logLevel": "debug"}"#)
        let environment = ConfigurationLayer(environment: [
            "KVSERVER_WORKERS": "4", "KVSERVER_DRAIN_SECONDS": "5", "KVSERVER_LISTEN": "", "PATH": "/bin",
        ])
        let flags = ConfigurationLayer(flags: [.workers: "7"])
        let settled = try ServerConfiguration([flags, environment, file])
        #expect(settled.node == NodeID("127.0.0.11:5000"))
        #expect(settled.listen == settled.node)
        #expect(settled.workers == 7)
        #expect(settled.drainSeconds == 5)
        #expect(settled.logLevel == .debug)
        #expect(settled.requestDeadlineMilliseconds == 1000)
        #expect(settled.memcached == "/run/kvserver/memcached.sock")
        #expect(settled.snapshotSeconds == 60)
        #expect(!settled.appendLog && settled.memcachedPort == nil)
        #expect(settled.slowRequestMilliseconds == 250)
        #expect(settled.traceSpans)
        #expect(settled.etcd == nil)
    }

    @Test(
        "whoever runs a node is told what is open",
        arguments: [
            (#"{"node": "127.0.0.1:5000"}"#, "", []),
            (#"{"node": "10.0.0.5:5000"}"#, "data admin peer", []),
            (#"{"node": "10.0.0.5:5000"}"#, "admin peer", ["pairs are open to whoever reaches 10.0.0.5:5000"]),
            (#"{"node": "10.0.0.5:5000", "listen": "127.0.0.1:5000"}"#, "", []),
            (
                #"{"node": "127.0.0.1:5000", "listen": "[::]:5000"}"#, "admin peer",
                ["pairs are open to whoever reaches [::]:5000"]
            ),
            (
                #"{"node": "127.0.0.1:5000", "insecure": true}"#, "data admin peer",
                ["insecure overrides the peer token"]
            ),
            (
                #"{"node": "127.0.0.1:5000", "insecure": true}"#, "",
                ["is taken for a node of the cluster", "whoever reaches this node may change the ring"]
            ),
        ] as [(String, String, [String])])
    func openDoors(_ json: String, _ doors: String, _ wanted: [String]) throws {
        let token = try TokenFile.tokens(in: String(repeating: "a", count: 32).utf8, of: "f")
        let tokens = AccessTokens(
            data: doors.contains("data") ? token : [], admin: doors.contains("admin") ? token : [],
            peer: doors.contains("peer") ? token : [])
        let said = try ServerConfiguration([try layer(json: json)]).openDoors(tokens)
        #expect(said.count == wanted.count && zip(said, wanted).allSatisfy { $0.contains($1) }, "\(said)")
    }

    @Test("the environment's names follow from the file's")
    func environmentNames() {
        #expect(Setting.node.environmentName == "KVSERVER_NODE")
        #expect(Setting.snapshotSeconds.environmentName == "KVSERVER_SNAPSHOT_SECONDS")
        #expect(Setting.appendLog.environmentName == "KVSERVER_APPEND_LOG")
        #expect(Setting.memcachedPort.environmentName == "KVSERVER_MEMCACHED_PORT")
        #expect(Setting.requestDeadlineMilliseconds.environmentName == "KVSERVER_REQUEST_DEADLINE_MILLISECONDS")
    }

    @Test(
        "what can't be right is named, with its origin",
        arguments: [
            (#"{}"#, "node is not set"),
            (#"{"node": "8.8.8.8:5000"}"#, "node is 8.8.8.8:5000, which is not where nodes may be"),
            (#"{"node": "127.0.0.1:5000", "peers": "10.0.0.0/8"}"#, "not where nodes may be (peers: 10.0.0.0/8)"),
            (#"{"node": "localhost:5000"}"#, "node is not a literal ip:port: 'localhost:5000' (in kvserver.json)"),
            (#"{"node": "127.0.0.1:5000", "worker": 2}"#, "there is no setting 'worker'"),
            (#"{"node": "127.0.0.1:5000", "workers": 0}"#, "workers is not a whole number from 1 to 60: '0'"),
            (#"{"node": "127.0.0.1:5000", "workers": 2.5}"#, "workers is not a whole number"),
            (#"{"node": "127.0.0.1:5000", "workers": [2]}"#, "workers: neither text nor a number"),
            (#"{"node": "127.0.0.1:5000", "stateDirectory": "state"}"#, "stateDirectory is not an absolute path"),
            (#"{"node": "127.0.0.1:5000", "snapshotSeconds": -1}"#, "snapshotSeconds is not a whole number from 0"),
            (
                #"{"node": "127.0.0.1:60000", "peerPortOffset": 10000}"#,
                "peerPortOffset is 10000, and ports end at 65535: the peers of 127.0.0.1:60000 could not call it"
            ),
            (#"{"node": "127.0.0.1:5000", "listen": "0.0.0.0:60000", "peerPortOffset": 10000}"#, "of 0.0.0.0:60000"),
            (
                #"{"node": "127.0.0.1:5000", "peerPortOffset": 6211, "memcachedPort": 11211}"#,
                "memcachedPort is the peers' port: 11211"
            ),
            (#"{"node": "127.0.0.1:5000", "memcachedPort": 5000}"#, "memcachedPort is the port of HTTP: 5000"),
            (
                #"{"node": "127.0.0.1:5000", "memcachedPort": 0}"#,
                "memcachedPort is not a whole number from 1 to 65535: '0'"
            ),
            (#"{"node": "127.0.0.1:5000", "appendLog": 1}"#, "appendLog is not true or false: '1'"),
            (
                #"{"node": "127.0.0.1:5000", "appendLog": true, "snapshotSeconds": 0}"#,
                "appendLog needs snapshots, which cut the log off"
            ),
            (#"{"node": "127.0.0.1:5000", "logFormat": "xml"}"#, "logFormat is not text or json: 'xml'"),
            (
                #"{"node": "127.0.0.1:5000", "slowRequestMilliseconds": -1}"#,
                "slowRequestMilliseconds is not a whole number from 0 to 3600000"
            ),
            (#"{"node": "127.0.0.1:5000", "traceSpans": "some"}"#, "traceSpans is not true or false"),
            (#"{"node": "127.0.0.1:5000", "memcached": "nowhere"}"#, "memcached is not a unix socket's path"),
            (#"{"node": "127.0.0.1:5000", "etcd": "127.0.0.1:2379"}"#, "etcd is not a list of etcd's members"),
            (#"{"node": "127.0.0.1:5000", "etcd": "http://a:1,http://a:1"}"#, "etcd is not a list of etcd's members"),
            (#"{"node": "127.0.0.1:5000", "etcdPrefix": "/a"}"#, "etcdPrefix is set, and etcd is not"),
            (
                #"{"node": "127.0.0.1:5000", "etcd": "http://a:1", "etcdPrefix": "a/"}"#,
                "etcdPrefix is not a prefix for keys"
            ),
            (#"{"node": "127.0.0.1:5000", "clockOffsetMilliseconds": 5}"#, "needs allowFailpoints"),
            (#"{"node": "127.0.0.1:5000""#, "kvserver.json is not a JSON object of settings"),
            (#"["node"]"#, "kvserver.json is not a JSON object of settings"),
        ])
    func refusals(_ json: String, _ text: String) {
        let error = #expect(throws: ConfigurationError.self) {
            try ServerConfiguration([try layer(json: json)])
        }
        #expect(error?.description.contains(text) == true, "\(error?.description ?? "no error")")
        #expect(error?.isUsage == false)
    }

    @Test("a wrong flag is the caller's mistake")
    func wrongFlag() {
        let error = #expect(throws: ConfigurationError.self) {
            try ServerConfiguration([ConfigurationLayer(flags: [.node: "127.0.0.1:5000", .workers: "many"])])
        }
        #expect(error?.isUsage == true)
        #expect(error?.description.contains("on the command line") == true)
    }

    @Test("a file that is not there is named")
    func noFile() {
        let error = #expect(throws: ConfigurationError.self) {
            try ConfigurationLayer(file: "/nowhere/kvserver.json")
        }
        #expect(error?.description == "can't read /nowhere/kvserver.json: there is no such file")
    }

    @Test("a worker gets exactly what its supervisor has settled on")
    func roundTrip() throws {
        let settled = try ServerConfiguration([
            try layer(
                json: #"""
                    {"node": "[fd00::7]:5000", "listen": "0.0.0.0:80", "memcached": "/tmp/a \"b\"\n.sock", "workers": 3,
                     "allowFailpoints": true, "failpointsFile": "/tmp/f", "clockOffsetMilliseconds": -5000}
                    """#)
        ])
        #expect(try ServerConfiguration(encoded: settled.encoded) == settled)
        #expect(try !settled.encoded.contains("\n"))
    }
}
