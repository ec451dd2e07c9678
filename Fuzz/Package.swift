// swift-tools-version: 6.2

import PackageDescription

/// The package around this one, as SwiftPM calls it: by its directory.
let store = String(Context.packageDirectory.dropLast("/Fuzz".count).split(separator: "/").last!)
/// The same as the compiler is told it. What is tried here is declared for that package alone (`package`), so the
/// target below says that it belongs to it, and that it does not belong to this one (`packageAccess`).
let packageOfStore = String(store.lowercased().map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" })

let package = Package(
    name: "Fuzz",
    dependencies: [
        .package(path: ".."),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    ],
    targets: [
        .executableTarget(
            name: "Fuzz",
            dependencies: [
                .product(name: "Parsers", package: store),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            packageAccess: false,
            swiftSettings: [
                .swiftLanguageMode(.v6),
                .enableUpcomingFeature("ExistentialAny"),
                .enableUpcomingFeature("MemberImportVisibility"),
                .enableUpcomingFeature("InternalImportsByDefault"),
                .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
                .treatAllWarnings(as: .error),
                .unsafeFlags(["-package-name", packageOfStore, "-parse-as-library"]),
            ])
    ]
)
