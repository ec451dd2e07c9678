// SPDX-License-Identifier: Apache-2.0

private import Glibc

/// One worker process, seen from its supervisor: its pid and the supervisor's end of its lifeline.
struct WorkerProcess: ~Copyable {
    /// The numbers under which a worker finds what it inherits.
    enum Inherited {
        static let listener: Int32 = 3
        static let lifeline: Int32 = 4
        static let cells: Int32 = 5
        static let memcachedListener: Int32 = 6
        static let secrets: Int32 = 7
        static let peerListener: Int32 = 8
    }

    let processID: Int32
    private let lifeline: Int32

    enum Sign {
        case nothing
        case beat
        case ready
    }

    /// - Parameters:
    ///   - arguments: without the program's name.
    ///   - listener: its number must be above those that the worker finds its descriptors under, like every descriptor
    ///     here: `dup2` onto itself would leave it close-on-exec.
    ///   - memcachedListener: likewise; nil where nobody is to connect there.
    ///   - peerListener: likewise; nil where other nodes connect where clients do.
    ///   - cells: what it counts in; nil where there is none.
    ///   - secrets: see `SecretMemory`.
    init(
        program: String, arguments: [String], environment: [String: String], listener: Int32,
        memcachedListener: Int32?, peerListener: Int32?, cells: Int32?, secrets: Int32
    ) throws(SystemError) {
        precondition(
            min(listener, memcachedListener ?? listener, peerListener ?? listener, secrets)
                >= ListeningSocket.lowestDescriptor,
            "see the parameter's description")
        var pair: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
            throw SystemError("can't make a lifeline")
        }
        defer { for descriptor in pair { close(descriptor) } }
        let theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, ListeningSocket.lowestDescriptor)
        guard theirs >= 0 else { throw SystemError("can't make a lifeline") }
        defer { close(theirs) }
        let ours = fcntl(pair[0], F_DUPFD_CLOEXEC, ListeningSocket.lowestDescriptor)
        guard ours >= 0 else { throw SystemError("can't make a lifeline") }
        do {
            processID = try WorkerProcess.spawn(
                program, [program] + arguments, environment.map { "\($0.key)=\($0.value)" }, listener,
                memcachedListener, peerListener, theirs, cells, secrets)
        } catch {
            close(ours)
            throw error
        }
        lifeline = ours
    }

    deinit { close(lifeline) }

    private static func spawn(
        _ program: String, _ arguments: [String], _ environment: [String], _ listener: Int32,
        _ memcachedListener: Int32?, _ peerListener: Int32?, _ lifeline: Int32, _ cells: Int32?, _ secrets: Int32
    ) throws(SystemError) -> Int32 {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_adddup2(&actions, listener, Inherited.listener)
        posix_spawn_file_actions_adddup2(&actions, lifeline, Inherited.lifeline)
        if let memcachedListener {
            posix_spawn_file_actions_adddup2(&actions, memcachedListener, Inherited.memcachedListener)
        }
        if let peerListener {
            posix_spawn_file_actions_adddup2(&actions, peerListener, Inherited.peerListener)
        }
        posix_spawn_file_actions_adddup2(&actions, secrets, Inherited.secrets)
        if let cells { posix_spawn_file_actions_adddup2(&actions, cells, Inherited.cells) }
        // The worker begins with no signal blocked or ignored, whatever is here.
        var none = sigset_t()
        sigemptyset(&none)
        var defaults = ProcessSignals.set()
        sigaddset(&defaults, SIGPIPE)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var processID: Int32 = 0
        let argv = arguments.map { strdup($0) } + [nil]
        let envp = environment.map { strdup($0) } + [nil]
        defer { for text in argv + envp { free(text) } }
        let code = posix_spawn(&processID, program, &actions, &attributes, argv, envp)
        guard code == 0 else { throw SystemError("can't start \(program)", code: code) }
        return processID
    }

    /// What the worker has said since the last time.
    borrowing func read() -> Sign {
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = recv(lifeline, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        // End of file and errors: the worker is gone, or will miss its beats.
        guard count > 0 else { return .nothing }
        return bytes[..<count].contains(Lifeline.readyByte) ? .ready : .beat
    }

    borrowing func announceLeave() {
        var byte = Lifeline.leaveByte
        send(lifeline, &byte, 1, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }

    borrowing func signal(_ number: Int32) { kill(processID, number) }
}
