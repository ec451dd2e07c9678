// SPDX-License-Identifier: Apache-2.0

import Control
import Foundation
import HashRing
import Testing

private func node(_ number: Int) -> NodeID { NodeID("10.0.0.\(number):5000")! }

private func ring(_ seats: [(Int, Int)]) -> Ring {
    Ring(seats: seats.map { Ring.Seat(position: Position($0.0)!, node: node($0.1)) })!
}

@Suite("HAProxy's map") struct BalancerMapTests {
    @Test func eachRunOfSlotsHasItsHoldersTheOwnerFirst() {
        let lines = BalancerMap.lines(of: ring([(3000, 1), (8000, 2)]), replicas: 3) { "s\($0.host.last!)" }
        #expect(lines.map(\.text) == ["0:3000 s1:s2", "3001:8000 s2:s1", "8001:9999 s1:s2"])
        let single = BalancerMap.lines(of: ring([(3000, 1), (8000, 2)]), replicas: 1) { "s\($0.host.last!)" }
        #expect(single.map(\.text) == ["0:3000 s1", "3001:8000 s2", "8001:9999 s1"])
    }

    @Test func neighboursWithTheSameServersAreOneLine() {
        let lines = BalancerMap.lines(of: ring([(1000, 1), (3000, 1), (9999, 2)]), replicas: 1) { "s\($0.host.last!)" }
        #expect(lines.map(\.text) == ["0:3000 s1", "3001:9999 s2"])
    }

    @Test func everySlotIsInOneLineOfItsOwner() {
        let ring = ring([(17, 3), (4000, 1), (4001, 2), (9000, 1), (9998, 4)])
        let lines = BalancerMap.lines(of: ring, replicas: 2) { "\($0)".replacing(":", with: "/") }
        for slot in Slot.all {
            let found = lines.filter { $0.slots.contains(slot.value) }
            let wanted = ring.preferenceList(of: slot, count: 2).map { "\($0)".replacing(":", with: "/") }
            #expect(found.map(\.servers) == [wanted.joined(separator: ":")], "slot \(slot)")
        }
    }

    @Test func namesAreWhatHAProxyTakes() {
        #expect(BalancerMap.serverName(of: NodeID("10.0.0.7:5000")!) == "n-10-0-0-7-5000")
        #expect(BalancerMap.serverName(of: NodeID("[fd00::7]:5000")!) == "n-fd00--7-5000")
    }
}

@Suite("HAProxy's answers") struct BalancerAnswerTests {
    @Test func servers() throws {
        let text = """
            1
            # be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port srvrecord
            3 nodes 1 node1 10.0.0.1 2 0 1 1 5000 -
            3 nodes 2 n-x 10.0.0.2 2 8 1 1 5000 -
            3 nodes 3 gone 10.0.0.3 0 1 1 1 5000 -
            3 nodes 4 six fd00::7 2 64 1 1 5001 -
            3 nodes 5 name - 0 32 1 1 5000 -
            """
        #expect(
            try BalancerAnswers.servers(text) == [
                BalancerServer(name: "node1", node: node(1)),
                BalancerServer(name: "n-x", node: node(2), isDraining: true),
                BalancerServer(name: "gone", node: node(3), isInMaintenance: true),
                BalancerServer(name: "six", node: NodeID("[fd00::7]:5001"), isInMaintenance: true),
                BalancerServer(name: "name", node: nil, isInMaintenance: true),
            ])
    }

    @Test(arguments: [
        "", "Can't find backend.", "1\n", "1\n# a b\n", "2\n# srv_name srv_addr srv_admin_state srv_port\n",
        "1\n# srv_name srv_addr srv_admin_state srv_port\nonly two",
        "1\n# srv_name srv_addr srv_admin_state srv_port\nn 10.0.0.1 x 5000",
    ])
    func whatIsNoListOfServersIsRefused(_ text: String) {
        #expect(throws: BalancerAnswers.Malformed.self) { try BalancerAnswers.servers(text) }
    }

    @Test func requests() throws {
        let text = "# pxname,svname,qcur,qmax,scur,\nclients,FRONTEND,,,9,\nnodes,node1,2,0,5,\nnodes,node2,0,0,0,\n"
        #expect(try BalancerAnswers.requests(text, backend: "nodes") == ["node1": 7, "node2": 0])
        #expect(throws: BalancerAnswers.Malformed.self) { try BalancerAnswers.requests("no", backend: "nodes") }
        let most = "# pxname,svname,qcur,scur,\nnodes,node1,9223372036854775807,9223372036854775807,\n"
        #expect(try BalancerAnswers.requests(most, backend: "nodes") == ["node1": 0])
    }

    @Test func maps() throws {
        let names = BalancerAnswers.mapNames(
            """
            # id (file) description
            0 (/etc/haproxy/ring.map) pattern loaded from file '/etc/haproxy/ring.map' used by map at file 'x' line 1. \
            curr_ver=0 next_ver=0 entry_cnt=0
            -1 (other) pattern
            """)
        #expect(names == ["/etc/haproxy/ring.map", "other"])
        #expect(
            BalancerAnswers.mapEntries("0x55d0 0:3000 a:b\n0x55d1 3001:9999 b\n\n") == ["0:3000 a:b", "3001:9999 b"])
        #expect(BalancerAnswers.mapEntries("Unknown map identifier.").isEmpty)
        #expect(try BalancerAnswers.preparedVersion("New version created: 17") == 17)
        #expect(throws: BalancerAnswers.Malformed.self) {
            try BalancerAnswers.preparedVersion("Unknown map identifier.")
        }
    }
}

@Suite("What HAProxy lacks") struct BalancerPlanTests {
    private let answer = BalancerRing(epoch: Epoch(4), ring: ring([(3000, 1), (8000, 2)]), replicas: 1)
    private let map = ["0:3000 node1", "3001:8000 node2", "8001:9999 node1"]
    private let servers = [BalancerServer(name: "node1", node: node(1)), BalancerServer(name: "node2", node: node(2))]

    @Test func nothingWhereAllIsAsItShouldBe() {
        #expect(BalancerPlan(ring: answer, servers: servers, mapEntries: map).actions.isEmpty)
    }

    @Test func aMapThatIsEmptyOrStaleIsSwapped() {
        for entries in [[], Array(map.dropLast()), map.reversed(), map + ["1:2 x"]] {
            let actions = BalancerPlan(ring: answer, servers: servers, mapEntries: entries).actions
            #expect(
                actions == [.swapMap(BalancerMap.lines(of: answer.ring, replicas: 1) { "node\($0.host.last!)" })])
        }
    }

    @Test func aNewcomerIsAServerBeforeTheMapNamesIt() {
        let grown = BalancerRing(
            epoch: Epoch(9), ring: ring([(3000, 1), (5000, 3), (8000, 2)]), replicas: 1, others: [node(4)])
        let actions = BalancerPlan(ring: grown, servers: servers, mapEntries: map).actions
        #expect(actions.prefix(2) == [.add(name: "n-10-0-0-3-5000", node(3)), .add(name: "n-10-0-0-4-5000", node(4))])
        guard case .swapMap(let lines)? = actions.last else { return #expect(Bool(false), "no map: \(actions)") }
        #expect(lines.map(\.text).contains("3001:5000 n-10-0-0-3-5000"))
    }

    @Test func whoeverLeavesIsDrainedThenPutAsideThenRemoved() {
        func actions(_ third: BalancerServer, overdue: Set<String> = []) -> [BalancerPlan.Action] {
            BalancerPlan(ring: answer, servers: servers + [third], mapEntries: map, overdue: overdue).actions
        }
        let name = "n-10-0-0-3-5000"
        #expect(actions(BalancerServer(name: name, node: node(3), requests: 2)) == [.drain(name: name)])
        let busy = BalancerServer(name: name, node: node(3), isDraining: true, requests: 2)
        #expect(actions(busy) == [])
        #expect(actions(busy, overdue: [name]) == [.maintain(name: name)])
        #expect(actions(BalancerServer(name: name, node: node(3), isDraining: true)) == [.maintain(name: name)])
        let aside = BalancerServer(name: name, node: node(3), isInMaintenance: true, isDraining: true)
        #expect(actions(aside) == [.remove(name: name)])
    }

    @Test func bothRingsOfAChangeAndStandbysAreServers() throws {
        let status = try JSONDecoder().decode(
            NodeStatus.self,
            from: Data(
                """
                {"version":"0.1.0","node":"10.0.0.1:5000","uptimeSeconds":3,"epoch":5,"isRecovering":false,
                 "hints":{"waiting":0},"replicas":2,"ring":{"3000":"10.0.0.1:5000"},"standbys":["10.0.0.4:5000"],
                 "transition":{"id":"a","change":{"kind":"replace","node":"10.0.0.3:5000","replaces":"10.0.0.2:5000"},
                 "step":"copying","abortReason":null,"from":{"1":"10.0.0.2:5000"},"to":{"1":"10.0.0.3:5000"},"progress":[]},
                 "lastChange":null,"workers":[],"memcached":{"isAnswering":true},"snapshot":null}
                """.utf8))
        #expect(BalancerRing(status)?.everybody == [node(1), node(2), node(3), node(4)])
        #expect(BalancerRing(status)?.ring == status.ring.ring)
    }

    @Test func onlyWhatWasPutAsideHereIsTakenBackFromMaintenance() {
        let grown = BalancerRing(epoch: Epoch(5), ring: answer.ring, replicas: 1, others: [node(3)])
        let back = servers + [BalancerServer(name: "n-10-0-0-3-5000", node: node(3), isDraining: true)]
        #expect(BalancerPlan(ring: grown, servers: back, mapEntries: map).actions == [.enable(name: "n-10-0-0-3-5000")])
        let ours = servers + [BalancerServer(name: "node3", node: node(3), isInMaintenance: true, isDraining: true)]
        #expect(
            BalancerPlan(ring: grown, servers: ours, mapEntries: map, leaving: ["node3"]).actions == [
                .enable(name: "node3")
            ])
        let drained = servers + [BalancerServer(name: "node3", node: node(3), isDraining: true)]
        #expect(BalancerPlan(ring: grown, servers: drained, mapEntries: map).actions == [.enable(name: "node3")])
        let operators = servers + [BalancerServer(name: "node3", node: node(3), isInMaintenance: true)]
        #expect(BalancerPlan(ring: grown, servers: operators, mapEntries: map).actions.isEmpty)
    }
}
