// SPDX-License-Identifier: Apache-2.0

package import NIOHTTP1

/// What a request's path asks for.
package enum Route: UInt8, Hashable, Sendable, CaseIterable {
    case home
    case pair
    case key
    case batch
    case list
    case export
    case `import`
    case owner
    case pairHere
    case ring
    case addNode
    case removeNode
    case replaceNode
    case abortChange
    case pairs
    case clear
    case status
    case metrics
    /// The page that shows the ring, and what it is made of.
    case page
    /// The ring and its nodes, as events.
    case watch
    /// What a change would move.
    case plan
    /// What each holder of a key has of it.
    case copies
    case live
    case ready
    case peerHello
    case peerBatch
    case peerCall

    /// The methods that it takes.
    package var methods: Methods {
        switch self {
        case .home, .owner, .list, .export, .pairs, .status, .metrics, .page, .watch, .plan, .copies, .live, .ready:
            .get
        case .pair, .pairHere: [.get, .post, .delete]
        // (POST for `:increment` alone.)
        case .key: [.get, .post, .put, .delete]
        case .ring, .addNode, .removeNode, .replaceNode, .abortChange, .clear: [.get, .post]
        case .batch, .import, .peerHello, .peerBatch, .peerCall: .post
        }
    }

    /// Whether a request changes nothing, so that others of its connection may be done at the same time (RFC 9112,
    /// section 9.3.2). That some changes may be asked for with GET does not make them safe.
    package func isSafe(_ method: Methods) -> Bool {
        switch self {
        case .home, .owner, .list, .export, .pairs, .status, .metrics, .page, .watch, .plan, .copies, .live, .ready:
            true
        case .pair, .key, .pairHere, .ring: method == .get
        case .addNode, .removeNode, .replaceNode, .abortChange, .clear, .batch, .import, .peerHello, .peerBatch,
            .peerCall:
            false
        }
    }
}

extension Route {
    /// How metrics name it.
    package var label: String { RouteTable.label(of: self) }
}

/// Who is served where a connection came in.
package enum ListeningSide: Hashable, Sendable {
    /// There is one port for all.
    case everybody
    /// The peers have a port of their own.
    case clients
    /// This is it.
    case peers

    package func serves(_ route: Route) -> Bool {
        if self == .everybody { return true }
        return switch route {
        case .peerHello, .peerBatch, .peerCall: self == .peers
        default: self == .clients
        }
    }
}

/// A set of request methods; HEAD is taken wherever GET is.
package struct Methods: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8

    package static let get = Methods(rawValue: 1)
    package static let post = Methods(rawValue: 2)
    package static let delete = Methods(rawValue: 4)
    package static let put = Methods(rawValue: 8)

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Nil for a method that nothing here takes.
    package init?(_ method: HTTPMethod) {
        switch method {
        case .GET, .HEAD: self = .get
        case .POST: self = .post
        case .DELETE: self = .delete
        case .PUT: self = .put
        default: return nil
        }
    }

    /// As the `Allow` header says it.
    package var allow: StaticString {
        switch self {
        case .get: "GET, HEAD"
        case .post: "POST"
        case [.get, .post]: "GET, HEAD, POST"
        case [.get, .put, .delete]: "GET, HEAD, PUT, DELETE"
        case [.get, .post, .put, .delete]: "GET, HEAD, POST, PUT, DELETE"
        default: "GET, HEAD, POST, DELETE"
        }
    }
}

/// Finds the route of a request's target by its raw bytes: nothing is decoded or normalised, so that whatever rules a
/// proxy has for a path can't be passed by another spelling of it.
package enum RouteTable {
    /// The route, and the length of the target's path; nil where there is no such path.
    package static func route(of target: UnsafeRawBufferPointer) -> (route: Route, pathLength: Int)? {
        let length = pathLength(of: target)
        let path = UnsafeRawBufferPointer(rebasing: target[..<length])
        return route(ofPath: path).map { ($0, length) }
    }

    /// Up to the question mark.
    package static func pathLength(of target: UnsafeRawBufferPointer) -> Int {
        var length = 0
        while length < target.count, target[length] != UInt8(ascii: "?") { length += 1 }
        return length
    }

    /// Whether errors are answered there as problem details (RFC 9457), also where the request itself is refused.
    package static func isForPrograms(_ target: String) -> Bool { target.utf8.starts(with: "/keys".utf8) }

    private static func route(ofPath path: UnsafeRawBufferPointer) -> Route? {
        // The two that come by the thousand first.
        if isEqual(path, "/route") { return .pair }
        if isEqual(path, "/peer/batch") { return .peerBatch }
        for (text, route) in whole where isEqual(path, text) { return route }
        for (text, route) in prefixes where path.count >= text.utf8CodeUnitCount {
            if isEqual(UnsafeRawBufferPointer(rebasing: path[..<text.utf8CodeUnitCount]), text) { return route }
        }
        return nil
    }

    private static let whole: [(StaticString, Route)] = [
        ("/", .home), ("/keys:batch", .batch), ("/keys", .list), ("/keys:export", .export), ("/keys:import", .import),
        ("/route_test", .owner), ("/cache", .pairHere), ("/hash_ring", .ring),
        ("/abort_change", .abortChange), ("/fetch_keys", .pairs), ("/clear_cache", .clear), ("/status", .status),
        ("/metrics", .metrics), ("/ui", .page), ("/ui/", .page), ("/ui/page.css", .page), ("/ui/page.js", .page),
        ("/ui/icon.svg", .page), ("/ui/events", .watch), ("/copies", .copies), ("/health/live", .live),
        ("/health/ready", .ready), ("/peer/hello", .peerHello),
    ]

    static let addNodePrefix: StaticString = "/add_node/"
    static let removeNodePrefix: StaticString = "/remove_node/"
    static let replaceNodePrefix: StaticString = "/replace_node/"
    static let planPrefix: StaticString = "/plan/"
    static let peerPrefix: StaticString = "/peer/"
    static let keyPrefix: StaticString = "/keys/"

    private static let prefixes: [(StaticString, Route)] = [
        (keyPrefix, .key),
        (addNodePrefix, .addNode), (removeNodePrefix, .removeNode), (replaceNodePrefix, .replaceNode),
        (planPrefix, .plan), (peerPrefix, .peerCall),
    ]

    /// How metrics name a route: as its path, or what all its paths begin with.
    static func label(of route: Route) -> String {
        switch route {
        case .pair: "/route"
        case .peerBatch: "/peer/batch"
        default: (whole + prefixes).first { $0.1 == route }.map { "\($0.0)" } ?? "none"
        }
    }

    private static func isEqual(_ bytes: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
        guard bytes.count == text.utf8CodeUnitCount else { return false }
        return text.withUTF8Buffer { text in
            for index in 0..<text.count where bytes[index] != text[index] { return false }
            return true
        }
    }
}
