// SPDX-License-Identifier: Apache-2.0

private import Glibc
internal import Supervision

/// What a process is given by its environment and its system.
enum ProcessEnvironment {
    static func variables() -> [String: String] {
        var variables: [String: String] = [:]
        // (Read by one thread, before there is a second one.)
        var next = environ
        while let text = next.pointee {
            let parts = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { variables[String(parts[0])] = String(parts[1]) }
            next += 1
        }
        return variables
    }
}

/// Where this program lies on disk.
enum ProgramPath {
    /// As it was called, made absolute. (`/proc/self/exe` would name the file that was replaced, not the new one.)
    static func absolute() -> String {
        let called = CommandLine.arguments.first ?? ""
        if called.hasPrefix("/") { return called }
        if called.contains("/"), let directory = getcwd(nil, 0) {
            defer { free(directory) }
            return String(cString: directory) + "/" + called
        }
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink("/proc/self/exe", &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(count, 0)).map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

enum ProcessLimits {
    /// As many descriptors as this process may have; its workers inherit the limit.
    static func raiseDescriptors() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// Whatever this process was started with, its workers get nothing but the standard streams and what is meant for
    /// them.
    static func closeInheritedOnExec() {
        guard let directory = opendir("/proc/self/fd") else { return }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let descriptor = Int32(name), descriptor > STDERR_FILENO { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        }
    }
}

enum Scheduling {
    /// Linux's policy for work that gains from being done in batches: threads of this process, once woken, don't push
    /// aside what runs, so more waits for them by the time they run (sched(7)). It needs no privilege, and matters only
    /// where all cores are busy.
    static func preferBatches() {
        var parameters = sched_param()
        // (Where this is forbidden, systemd has set the policy already.)
        _ = sched_setscheduler(0, batchPolicy, &parameters)
    }

    /// SCHED_BATCH, which Swift's Glibc lacks.
    private static let batchPolicy: CInt = 3
}

/// The directory of the ring file.
enum StateDirectory {
    /// Makes it if it is not there; it must be writable.
    static func prepare(_ path: String) throws(ConfigurationError) {
        if mkdir(path, 0o700) != 0, errno != EEXIST {
            throw ConfigurationError("can't make the stateDirectory \(path): \(String(cString: strerror(errno)))")
        }
        guard access(path, W_OK | X_OK) == 0 else {
            throw ConfigurationError("can't write in the stateDirectory \(path): \(String(cString: strerror(errno)))")
        }
    }
}
