// SPDX-License-Identifier: Apache-2.0

private import Glibc
private import Memcached
package import Telemetry

/// A worker's end of the socket pair between it and its supervisor, and what it inherits besides.
package struct Lifeline: Sendable {
    static let readyByte = UInt8(ascii: "R")
    static let beatByte = UInt8(ascii: ".")
    static let leaveByte = UInt8(ascii: "L")

    package static let beatMilliseconds: Int64 = 250
    /// The environment variable in which a worker finds its configuration.
    package static let configurationVariable = "KVSERVER_WORKER_CONFIGURATION"
    private static let watchMilliseconds = 50

    /// What the supervisor wants of this worker.
    package enum Order: Hashable, Sendable {
        /// The whole node is about to leave: serve on, but say so.
        case announceLeave
        /// Finish and leave.
        case drain
        /// The supervisor is gone: finish and leave soon.
        case orphaned
    }

    /// The listening socket's descriptor.
    package var listener: Int32 { WorkerProcess.Inherited.listener }
    /// Where clients connect to who speak memcached's protocol; nil: nowhere.
    package let memcachedListener: Int32?
    /// Where other nodes connect to; nil: where clients do.
    package let peerListener: Int32?
    /// What the processes of this host count in; memory of this process alone where the supervisor gave none.
    package let cells: CellMemory

    /// As the supervisor has read them.
    package let secrets: NodeSecrets

    /// - Returns: nil where this process was not started by a supervisor.
    package init?() {
        var kind: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        func isInherited(_ socket: Int32) -> Bool {
            getsockopt(socket, SOL_SOCKET, SO_TYPE, &kind, &length) == 0 && kind == Int32(SOCK_STREAM.rawValue)
                && fcntl(socket, F_SETFD, FD_CLOEXEC) == 0
        }
        guard isInherited(WorkerProcess.Inherited.listener), isInherited(WorkerProcess.Inherited.lifeline) else {
            return nil
        }
        guard let secrets = SecretMemory.secrets(in: WorkerProcess.Inherited.secrets) else { return nil }
        self.secrets = secrets
        // (No descriptor has been opened yet: where nothing was given, nothing is there.)
        let memcachedListener = WorkerProcess.Inherited.memcachedListener
        self.memcachedListener = isInherited(memcachedListener) ? memcachedListener : nil
        let peerListener = WorkerProcess.Inherited.peerListener
        self.peerListener = isInherited(peerListener) ? peerListener : nil
        let file = WorkerProcess.Inherited.cells
        let slots = SupervisorStateMachine.slots
        if fcntl(file, F_SETFD, FD_CLOEXEC) == 0, let shared = CellMemory(file: file, workerSlots: slots) {
            self.cells = shared
        } else {
            self.cells = CellMemory(workerSlots: slots)
        }
    }

    package func sendReady() { send(Lifeline.readyByte) }

    /// To be called from the event loop, so that a stuck one falls silent.
    package func sendBeat() { send(Lifeline.beatByte) }

    private func send(_ byte: UInt8) {
        var byte = byte
        // A supervisor that is stopped does not read; it forgives what it did not see.
        Glibc.send(
            WorkerProcess.Inherited.lifeline, &byte, 1, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }

    /// Hands on the supervisor's orders, until the process ends. For a thread of its own, which an event loop that is
    /// stuck can't stop: a worker that outlives its supervisor by more than it may is ended here.
    package func watch(orphanMilliseconds: Int64, _ handle: (Order) -> Void) -> Never {
        let signals = ProcessSignals()
        var endAt: Int64?
        while true {
            if case .terminate? = signals.next(milliseconds: Lifeline.watchMilliseconds) { handle(.drain) }
            let now = MonotonicClock.milliseconds()
            if let endAt {
                if now >= endAt { _exit(1) }
                continue
            }
            var bytes = [UInt8](repeating: 0, count: 16)
            let count = recv(
                WorkerProcess.Inherited.lifeline, &bytes, bytes.count, Int32(MSG_DONTWAIT))
            if count > 0 {
                if bytes[..<count].contains(Lifeline.leaveByte) { handle(.announceLeave) }
            } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
                endAt = now + orphanMilliseconds
                handle(.orphaned)
            }
        }
    }
}
