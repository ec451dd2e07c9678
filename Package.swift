// swift-tools-version: 6.2

import PackageDescription

/// The language mode of every target of ours: what a newcomer must know before reading the code.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .treatAllWarnings(as: .error),
]

/// Swift's own libraries become part of the program: nothing of Swift's has to be installed on the hosts, and nothing is
/// called by way of a table (docs/performance.md). ThreadSanitizer is told of tasks by the shared ones alone, and takes
/// each task for a race otherwise (Tests/sanitize.sh).
let ofPrograms: [LinkerSetting] =
    Context.environment["KVSERVER_SHARED_RUNTIME"] == nil
    ? [.unsafeFlags(["-static-stdlib", "-l_FoundationCShims", "-l_FoundationCollections"])] : []

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let metrics = Target.Dependency.product(name: "CoreMetrics", package: "swift-metrics")
let asyncHTTPClient = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let tracing = Target.Dependency.product(name: "Tracing", package: "swift-distributed-tracing")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")

let package = Package(
    name: "kvserver",
    products: [
        .executable(name: "KVServer", targets: ["KVServer"]),
        .executable(name: "kvctl", targets: ["kvctl"]),
        // What reads bytes from elsewhere, and what tests of it share, for the package beside this one that fuzzes it.
        .library(
            name: "Parsers",
            targets: [
                "AccessControl", "HTTPFront", "MemcachedFront", "Listening", "Cluster", "RequestTracing", "Memcached",
                "Etcd", "Control", "Supervision", "KeyValue", "HashRing", "TestSupport",
            ]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/apple/swift-distributed-tracing", from: "1.7.3"),
    ],
    targets: [
        .systemLibrary(
            name: "CMemcached", pkgConfig: "libmemcached", providers: [.apt(["libmemcached-dev"])]),
        .systemLibrary(name: "CLinux"),
        // What is counted: over swift-metrics, into memory that a host's processes share.
        .target(name: "Telemetry", dependencies: ["CLinux", metrics], swiftSettings: settings),
        .target(name: "HashRing", dependencies: [crypto], swiftSettings: settings),
        // Who may ask for what: tokens, the nodes' handshake, where nodes may be.
        .target(name: "AccessControl", dependencies: ["HashRing", crypto], swiftSettings: settings),
        .target(name: "KeyValue", dependencies: ["HashRing", nioCore, crypto], swiftSettings: settings),
        // Certificates and keys, and what connections make of them.
        .target(
            name: "TransportSecurity", dependencies: ["AccessControl", "HashRing", nioCore, nioTLS, nioSSL],
            swiftSettings: settings),
        // By which names a request is found again, on every node that it touched.
        .target(
            name: "RequestTracing", dependencies: ["KeyValue", "HashRing", logging, tracing], swiftSettings: settings),
        .target(
            name: "Memcached", dependencies: ["CMemcached", "KeyValue", "HashRing", nioCore, logging, metrics, deque],
            swiftSettings: settings),
        .target(name: "Etcd", dependencies: [asyncHTTPClient, nioCore, nioPosix, nioHTTP1], swiftSettings: settings),
        .target(
            name: "Cluster",
            dependencies: [
                "AccessControl", "TransportSecurity", "Memcached", "Etcd", "RequestTracing", "KeyValue", "HashRing",
                nioCore, nioPosix, nioHTTP1, logging, metrics, deque, crypto, tracing,
            ],
            swiftSettings: settings),
        // A worker's listening side, whatever its clients speak.
        .target(
            name: "Listening", dependencies: ["TransportSecurity", "KeyValue", nioCore, nioPosix],
            swiftSettings: settings),
        // What a browser is given at /ui: files that an editor of pages can work on, no step between them and the browser.
        .target(
            name: "RingPage", dependencies: [crypto],
            resources: [
                .embedInCode("page.html"), .embedInCode("page.css"), .embedInCode("page.js"), .embedInCode("icon.svg"),
            ], swiftSettings: settings),
        .target(
            name: "HTTPFront",
            dependencies: [
                "AccessControl", "TransportSecurity", "Listening", "RingPage", "Cluster", "RequestTracing", "KeyValue",
                "HashRing", nioCore, nioPosix, nioHTTP1, logging, metrics, tracing,
            ],
            swiftSettings: settings),
        .target(
            name: "MemcachedFront",
            dependencies: [
                "AccessControl", "TransportSecurity", "Listening", "Cluster", "KeyValue", nioCore, metrics, deque,
            ],
            swiftSettings: settings),
        // Processes, configuration and logs; no data passes here.
        .target(
            name: "Supervision",
            dependencies: [
                "AccessControl", "TransportSecurity", "CLinux", "Telemetry", "Memcached", "Etcd", "KeyValue",
                "HashRing", logging, metrics,
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "KVServer",
            dependencies: [
                "AccessControl", "TransportSecurity", "Supervision", "Telemetry", "Control", "HTTPFront",
                "MemcachedFront", "Listening",
                "Cluster",
                "RequestTracing",
                "Memcached", "Etcd", "KeyValue", "HashRing", nioCore, nioPosix, logging, metrics,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings,
            linkerSettings: ofPrograms),

        // What kvctl decides and decodes, without IO.
        .target(name: "Control", dependencies: ["KeyValue", "HashRing", nioCore, crypto], swiftSettings: settings),
        .executableTarget(
            name: "kvctl",
            dependencies: [
                "AccessControl", "Control", "KeyValue", "HashRing", asyncHTTPClient, nioCore, nioPosix, nioHTTP1,
                nioSSL,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings,
            linkerSettings: ofPrograms),

        // What tests share: a real memcached on a socket of its own, a scripted fake one, random numbers by seed.
        .target(
            name: "TestSupport", dependencies: ["Cluster", "KeyValue", "HashRing", nioCore, nioHTTP1, nioEmbedded],
            path: "Tests/TestSupport", swiftSettings: settings),
        // What Tests/bench/instructions.py counts, beside whole requests.
        .executableTarget(
            name: "Microbenchmarks", dependencies: ["HTTPFront", "KeyValue", "HashRing", nioCore],
            path: "Tests/bench/Microbenchmarks", swiftSettings: settings, linkerSettings: ofPrograms),
        .testTarget(name: "TelemetryTests", dependencies: ["Telemetry", metrics], swiftSettings: settings),
        .testTarget(
            name: "AccessControlTests", dependencies: ["AccessControl", "HashRing", "TestSupport"],
            swiftSettings: settings),
        .testTarget(
            name: "TransportSecurityTests",
            dependencies: ["TransportSecurity", "AccessControl", "HashRing", "TestSupport"],
            swiftSettings: settings),
        .testTarget(name: "HashRingTests", dependencies: ["HashRing", "TestSupport"], swiftSettings: settings),
        .testTarget(name: "KeyValueTests", dependencies: ["KeyValue", "HashRing", nioCore], swiftSettings: settings),
        .testTarget(
            name: "RequestTracingTests",
            dependencies: ["RequestTracing", "KeyValue", "HashRing", "TestSupport", logging, tracing],
            swiftSettings: settings),
        .testTarget(name: "EtcdTests", dependencies: ["Etcd", nioCore], swiftSettings: settings),
        .testTarget(
            name: "ClusterTests",
            dependencies: [
                "AccessControl", "Cluster", "Memcached", "Etcd", "RequestTracing", "KeyValue", "HashRing",
                "TestSupport", nioCore, nioPosix, nioHTTP1, logging,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "SimulationTests", dependencies: ["Cluster", "KeyValue", "HashRing", "TestSupport", nioCore],
            swiftSettings: settings),
        .testTarget(
            name: "MemcachedTests",
            dependencies: ["Memcached", "KeyValue", "HashRing", "TestSupport", nioCore, nioPosix, logging],
            swiftSettings: settings),
        .testTarget(
            name: "HTTPFrontTests",
            dependencies: [
                "HTTPFront", "AccessControl", "Listening", "Telemetry", "Cluster", "RequestTracing", "KeyValue",
                "HashRing",
                "TestSupport",
                nioCore, nioPosix, nioHTTP1, nioEmbedded, logging,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "MemcachedFrontTests",
            dependencies: [
                "MemcachedFront", "AccessControl", "Cluster", "RequestTracing", "KeyValue", nioCore, nioEmbedded,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "kvctlTests", dependencies: ["Control", "KeyValue", "HashRing", nioCore], swiftSettings: settings),
        .testTarget(
            name: "KVServerTests", dependencies: ["Supervision", "AccessControl", "HashRing", "TestSupport", logging],
            swiftSettings: settings),
    ]
)
