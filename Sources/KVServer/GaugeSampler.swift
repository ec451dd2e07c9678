// SPDX-License-Identifier: Apache-2.0

internal import Cluster
private import CoreMetrics
private import Glibc
internal import HTTPFront
internal import Memcached
internal import MemcachedFront
internal import NIOCore

/// Lets the host's metrics know, now and then, how this worker is: what is true of a moment need not be counted when it
/// changes. Belongs to the worker's event loop.
final class GaugeSampler {
    private static let interval = TimeAmount.milliseconds(500)

    private let loop: any EventLoop
    private let front: Front
    private let commandFront: CommandFront?
    private let coordinator: Coordinator
    private let lanes: LaneGroup
    private let clock: WorkerClock
    private let log: PairLog?

    private let connections = Meter(label: "kvserver_connections")
    private let heldBytes = Meter(label: "kvserver_front_held_bytes")
    private let commandConnections = Meter(label: "kvserver_command_connections")
    private let commandHeldBytes = Meter(label: "kvserver_command_held_bytes")
    private let waitingReads = Meter(label: "kvserver_lane_waiting_operations", dimensions: [("lane", "read")])
    private let waitingWrites = Meter(label: "kvserver_lane_waiting_operations", dimensions: [("lane", "write")])
    private let waitingForPeers = Meter(label: "kvserver_peer_waiting_operations")
    private let residentBytes = Meter(label: "kvserver_workers_resident_memory_bytes")
    private let refusedReadings = Counter(label: "kvserver_clock_refused_readings_total")
    private let refusedByLog = Counter(label: "kvserver_log_refused_turns_total")
    /// What of it the two counters have.
    private var counted = (readings: 0, turns: 0)

    init(
        loop: any EventLoop, front: Front, commandFront: CommandFront?, coordinator: Coordinator, lanes: LaneGroup,
        clock: WorkerClock, log: PairLog?
    ) {
        self.loop = loop
        self.front = front
        self.commandFront = commandFront
        self.coordinator = coordinator
        self.lanes = lanes
        self.clock = clock
        self.log = log
    }

    /// From now on until the worker ends.
    func begin() {
        sample()
        let bound = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleRepeatedTask(initialDelay: GaugeSampler.interval, delay: GaugeSampler.interval) { _ in
            bound.value.sample()
        }
    }

    func sample() {
        connections.set(front.connectionCount)
        heldBytes.set(front.heldBytes)
        commandConnections.set(commandFront?.connectionCount ?? 0)
        commandHeldBytes.set(commandFront?.heldBytes ?? 0)
        let (reads, writes) = lanes.waitingOperations
        waitingReads.set(reads)
        waitingWrites.set(writes)
        waitingForPeers.set(coordinator.waitingPeerOperations)
        residentBytes.set(GaugeSampler.residentBytes)
        let now = (readings: clock.refusedCount, turns: log?.condition.refused ?? 0)
        refusedReadings.increment(by: now.readings - counted.readings)
        refusedByLog.increment(by: now.turns - counted.turns)
        counted = now
    }

    /// By /proc/self/statm; 0 where it can't be read.
    private static var residentBytes: Int {
        guard let file = fopen("/proc/self/statm", "r") else { return 0 }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 128)
        let count = fread(&bytes, 1, bytes.count, file)
        let fields = String(decoding: bytes[..<count], as: UTF8.self).split(separator: " ")
        return (fields.count > 1 ? Int(fields[1]) ?? 0 : 0) * sysconf(Int32(_SC_PAGESIZE))
    }
}
