// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
private import Cluster
private import CoreMetrics
private import Glibc
internal import Logging
internal import Supervision
private import Telemetry

/// The command line of the daemon.
struct ServerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "KVServer",
        abstract: "Serves one node of the key-value store.",
        discussion: """
            Starts worker processes that share one port, and replaces those that die or hang.

            Each setting is looked for in the flags, then in the environment (KVSERVER_NODE, KVSERVER_LISTEN and so on), \
            then in the file that --config names, under the flag's name in camel case.

            SIGTERM lets the workers finish and ends the node. SIGHUP reads the file again and replaces the workers one \
            by one, from the program as it is on disk then; no connection is refused meanwhile.

            Tokens are in files that this user alone can read, one a line, two while they are being changed, each 32 to 256 \
            letters and digits (openssl rand -hex 32); one file may serve for all. A key's file is for this user alone, too. \
            systemd's credentials data-token, admin-token, peer-token, tls-certificate, tls-key, peer-certificate, \
            peer-key and peer-authority are found by themselves.
            """,
        version: programVersion)

    @Option(help: ArgumentHelp("A JSON file of settings.", valueName: "file"))
    var config: String?

    @Flag(help: "Only say whether the configuration can be right.")
    var check = false

    @Option(help: ArgumentHelp("The name by which the ring and the other nodes know this node.", valueName: "ip:port"))
    var node: String?

    @Option(help: ArgumentHelp("Where to listen, if not at the node's name.", valueName: "ip:port"))
    var listen: String?

    @Option(
        help: ArgumentHelp(
            "Also speak memcached's protocol, at this port of the same address (it does not).", valueName: "number"))
    var memcachedPort: String?

    @Option(
        help: ArgumentHelp(
            "How far above each node's port its peers call it, at a port of their own; the same on every node (0: one port for all).",
            valueName: "number"))
    var peerPortOffset: String?

    @Option(help: ArgumentHelp("Worker processes (one a core).", valueName: "number"))
    var workers: String?

    @Option(
        help: ArgumentHelp(
            "memcached's unix socket, or host:port (/run/kvserver/memcached.sock).", valueName: "address"))
    var memcached: String?

    @Option(help: ArgumentHelp("Where ring and pairs are kept on disk (/var/lib/kvserver).", valueName: "directory"))
    var stateDirectory: String?

    @Option(help: ArgumentHelp("How often the pairs are written to disk; 0: never (60).", valueName: "seconds"))
    var snapshotSeconds: String?

    @Flag(help: "Log each write to disk as well, synced every second (it is not).")
    var appendLog = false

    @Option(help: ArgumentHelp("After this a request is answered 503 (1000).", valueName: "milliseconds"))
    var requestDeadlineMilliseconds: String?

    @Option(help: ArgumentHelp("strict or sloppy, for requests that say nothing else (sloppy).", valueName: "level"))
    var consistency: String?

    @Option(help: ArgumentHelp("How many replicas answer a read (a majority).", valueName: "number"))
    var readQuorum: String?

    @Option(
        help: ArgumentHelp("How many replicas hold a write before it is answered (a majority).", valueName: "number"))
    var writeQuorum: String?

    @Option(
        help: ArgumentHelp(
            "How often replicas are compared; 0: only after one has been away (60).", valueName: "seconds"))
    var repairSeconds: String?

    @Option(
        help: ArgumentHelp(
            "How long a value of several MiB may take to arrive; the same on every node (600).", valueName: "seconds"))
    var uploadSeconds: String?

    @Option(help: ArgumentHelp("How long a leaving worker waits for its connections (10).", valueName: "seconds"))
    var drainSeconds: String?

    @Option(
        help: ArgumentHelp(
            "Whose pages may use /keys from a browser: origins between commas, or * (nobody's).",
            valueName: "https://host,…"))
    var corsOrigins: String?

    @Option(
        help: ArgumentHelp(
            "A file of the token that requests for pairs have to carry (none has to).", valueName: "file"))
    var dataTokenFile: String?

    @Option(
        help: ArgumentHelp(
            "A file of the token that changes of the ring have to carry (loopback alone may ask).", valueName: "file"))
    var adminTokenFile: String?

    @Option(
        help: ArgumentHelp(
            "A file of the token that the nodes prove to each other that they know (they do not).", valueName: "file"))
    var peerTokenFile: String?

    @Option(
        help: ArgumentHelp(
            "A PEM file of the certificate chain that clients are shown, and so TLS for them (plain text).",
            valueName: "file"))
    var tlsCertificateFile: String?

    @Option(help: ArgumentHelp("A PEM file of its key.", valueName: "file"))
    var tlsKeyFile: String?

    @Option(
        help: ArgumentHelp(
            "A PEM file of the certificate that this node shows to others, and so TLS between nodes (plain text).",
            valueName: "file"))
    var peerCertificateFile: String?

    @Option(help: ArgumentHelp("A PEM file of its key.", valueName: "file"))
    var peerKeyFile: String?

    @Option(
        help: ArgumentHelp(
            "A PEM file of the authority that has signed the certificates of all nodes.", valueName: "file"))
    var peerAuthorityFile: String?

    @Option(
        help: ArgumentHelp(
            "Where other nodes may be: CIDR blocks between commas (loopback and private networks).",
            valueName: "block,…"))
    var peers: String?

    @Flag(
        help: "Listen beyond loopback without an admin and a peer token, and let anybody in, also where there are some."
    )
    var insecure = false

    @Option(
        help: ArgumentHelp(
            "etcd's members, between commas, if etcd is to keep the ring for all nodes (the nodes do it themselves).",
            valueName: "http://host:port,…"))
    var etcd: String?

    @Option(help: ArgumentHelp("What this cluster's keys in etcd begin with (/kvserver).", valueName: "prefix"))
    var etcdPrefix: String?

    @Option(help: ArgumentHelp("trace, debug, info, notice, warning or error (info).", valueName: "level"))
    var logLevel: String?

    @Option(help: ArgumentHelp("text or json (text).", valueName: "format"))
    var logFormat: String?

    @Option(
        help: ArgumentHelp(
            "A request that takes so long gets a log line; 0: only one that fails (250).", valueName: "milliseconds"))
    var slowRequestMilliseconds: String?

    @Option(
        help: ArgumentHelp(
            "Whether the spans of sampled traces (traceparent) are logged (true).", valueName: "true|false"))
    var traceSpans: String?

    @Flag(help: "For tests: lets failpoints and a clock offset work.")
    var allowFailpoints = false

    @Option(help: ArgumentHelp("For tests: a file of failpoints.", valueName: "file"))
    var failpointsFile: String?

    @Option(help: ArgumentHelp("For tests: added to the wall clock.", valueName: "milliseconds"))
    var clockOffsetMilliseconds: String?

    func run() throws {
        let environment = ProcessEnvironment.variables()
        let settled: ServerConfiguration
        let secrets: NodeSecrets
        do {
            (settled, secrets) = try readConfiguration(environment)
            try StateDirectory.prepare(settled.stateDirectory)
        } catch {
            Self.fail(error.description, status: error.isUsage ? ExitStatus.usage : ExitStatus.configuration)
        }
        if check {
            LogLineHandler.writeToStandardError("The configuration can be right.\n")
            return
        }
        ProcessLimits.raiseDescriptors()
        ProcessLimits.closeInheritedOnExec()
        let cells = HostCells()
        MetricsSystem.bootstrap(
            PrometheusMetricsFactory(
                (cells?.memory ?? CellMemory(workerSlots: 0)).part(ofSlot: nil), bounds: MetricCatalogue.bounds))
        let isJournal = LogLineHandler.isJournal(environment["JOURNAL_STREAM"])
        var supervisor: Supervisor
        do {
            supervisor = try Supervisor(
                settled, try SecretMemory(secrets), openDoors: settled.openDoors(secrets.tokens),
                Supervisor.Invocation(
                    program: ProgramPath.absolute(), arguments: Array(CommandLine.arguments.dropFirst()),
                    environment: environment), cells: cells,
                readConfiguration: { [self] in try readConfiguration(environment) },
                makeLogger: { Logger(settings: $0, isJournal: isJournal) })
        } catch {
            Self.fail("\(error)", status: 1)
        }
        supervisor.run()
    }

    private static func fail(_ message: String, status: Int32) -> Never {
        LogLineHandler.writeToStandardError("KVServer: \(message)\n")
        Glibc.exit(status)
    }

    private func readConfiguration(_ environment: [String: String]) throws(ConfigurationError) -> (
        ServerConfiguration, NodeSecrets
    ) {
        var layers = [flags, ConfigurationLayer(environment: environment)]
        if let config { layers.append(try ConfigurationLayer(file: config)) }
        let credentials = environment["CREDENTIALS_DIRECTORY"].flatMap { $0.isEmpty ? nil : $0 }
        if let credentials { layers.append(ConfigurationLayer(credentials: credentials)) }
        let settled = try ServerConfiguration(layers)
        return (settled, try settled.readSecrets(credentials: credentials))
    }

    private var flags: ConfigurationLayer {
        var values: [Setting: String] = [:]
        values[.node] = node
        values[.listen] = listen
        values[.memcachedPort] = memcachedPort
        values[.peerPortOffset] = peerPortOffset
        values[.workers] = workers
        values[.memcached] = memcached
        values[.stateDirectory] = stateDirectory
        values[.snapshotSeconds] = snapshotSeconds
        values[.appendLog] = appendLog ? "true" : nil
        values[.requestDeadlineMilliseconds] = requestDeadlineMilliseconds
        values[.consistency] = consistency
        values[.readQuorum] = readQuorum
        values[.writeQuorum] = writeQuorum
        values[.repairSeconds] = repairSeconds
        values[.uploadSeconds] = uploadSeconds
        values[.drainSeconds] = drainSeconds
        values[.corsOrigins] = corsOrigins
        values[.dataTokenFile] = dataTokenFile
        values[.adminTokenFile] = adminTokenFile
        values[.peerTokenFile] = peerTokenFile
        values[.tlsCertificateFile] = tlsCertificateFile
        values[.tlsKeyFile] = tlsKeyFile
        values[.peerCertificateFile] = peerCertificateFile
        values[.peerKeyFile] = peerKeyFile
        values[.peerAuthorityFile] = peerAuthorityFile
        values[.peers] = peers
        values[.insecure] = insecure ? "true" : nil
        values[.etcd] = etcd
        values[.etcdPrefix] = etcdPrefix
        values[.logLevel] = logLevel
        values[.logFormat] = logFormat
        values[.slowRequestMilliseconds] = slowRequestMilliseconds
        values[.traceSpans] = traceSpans
        values[.allowFailpoints] = allowFailpoints ? "true" : nil
        values[.failpointsFile] = failpointsFile
        values[.clockOffsetMilliseconds] = clockOffsetMilliseconds
        return ConfigurationLayer(flags: values)
    }
}

extension Logger {
    /// The logger of one process.
    init(settings: ServerConfiguration, isJournal: Bool) {
        self.init(label: "kvserver") { _ in
            LogLineHandler(settings.logFormat, level: settings.logLevel, isJournal: isJournal)
        }
    }
}
