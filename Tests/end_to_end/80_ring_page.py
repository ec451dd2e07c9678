# SPDX-License-Identifier: Apache-2.0
"""The ring's page in Chromium: a ring with 2, 30 and 100 nodes, a live change, troubles, markup in keys, a token, by keyboard and on a phone."""

import json
import socket
import threading
import time
from contextlib import ExitStack, suppress
from urllib.parse import quote

from harness.browser import Browser
from harness.client import ask, request_bytes
from harness.expectations import eventually, expect, expect_equal
from harness.stage import POLICY, Stage, even_positions

LIMIT_SECONDS = 180

MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>&amp;\'"'
#: Pages that one worker tells of the ring.
WATCHERS = 16


def run(context):
    with Browser() as browser:
        with Stage(even_positions(30, 12), standbys=["10.0.0.99:5000"]) as stage:
            a_ring_of_thirty(browser, stage)
            troubles_are_seen(browser, stage)
            each_trouble_has_its_words(browser, stage)
            markup_is_text(browser, stage)
            copies_that_differ(browser, stage)
            by_keyboard(browser, stage)
            on_a_phone(browser, stage)
            a_plan_is_of_one_ring(browser, stage)
            a_token_is_asked_for(browser, stage)
            changes_carry_the_token(browser, stage)
            an_answer_is_of_one_change(browser, stage)
            a_token_is_forgotten(browser, stage)
            a_refusal_is_not_always_for_a_token(browser, stage)
        expect_equal(complaints(browser, "401", "403", "409", "An update can’t be shown"), [], "what the browser had to say of a page of 30 nodes")
        with Stage(even_positions(3, 8)) as stage:
            silence_is_shown(browser, stage)
            a_page_that_nobody_sees(browser, stage)
            a_token_is_revoked(browser, stage)
        with Stage({}, epoch=0) as stage:
            a_node_without_a_ring(browser, stage)
        browser.complaints.clear()
        with Stage(even_positions(100, 64)) as stage:
            many_nodes_stay_smooth(browser, stage, context)
            # (Or the page may ask again for events between this stage's end and the next page.)
            browser.call("Page.navigate", url="about:blank")
        with context.cluster(replicas=2, settings={"workers": 1}) as cluster:
            cluster.install_ring(cluster.first_ring, standbys=[cluster.node(3).address])
            deaf = deaf_readers(cluster)
            files_are_served(cluster)
            a_real_ring(browser, cluster)
            a_change(browser, cluster)
            a_change_is_aborted(browser, cluster)
            a_stream_is_renewed(browser, cluster)
            expect_equal(complaints(browser, "auto/nonsense"), [], "what the browser had to say of a real ring")
            a_node_ends(browser, cluster)
            a_node_hangs(cluster)
            deaf_readers_are_cut_off(cluster, *deaf)
            watchers_are_bounded(cluster)
            browser.call("Page.navigate", url="about:blank")
            nodes_are_asked_once_for_all(cluster)


def complaints(browser, *but):
    return [text for text in browser.complaints if not any(one in text for one in but)]


def says_all_is_well(browser, count):
    browser.wait(f"document.querySelector('#verdict').textContent === 'All {count} nodes are up.'", f"the verdict on {count} nodes that are well")


def opened(browser, address):
    browser.open(f"http://{address}/ui")
    browser.wait("document.querySelector('#connection')?.dataset.state === 'live'", "the page is live")


def row(browser, node):
    return browser.value(f"document.querySelector('#rows [data-node=\"{node}\"]')?.innerText.replace(/\\s+/g, ' ') ?? ''")


# A stage

def a_ring_of_thirty(browser, stage):
    opened(browser, stage.address)
    browser.wait("document.querySelectorAll('#rows tr').length === 31", "a row for each node")
    expect_equal(browser.value("document.querySelectorAll('.arc').length"), 30, "shapes of nodes in the ring")
    browser.wait("document.querySelector('#verdict').textContent === 'All 31 nodes are up.'", "the verdict")
    expect_equal(browser.value("document.querySelector('#centre-1').textContent"), "30", "the number in the ring's middle")
    shares = browser.value("[...document.querySelectorAll('#rows td:nth-child(3)')].map((cell) => parseFloat(cell.textContent) || 0)")
    expect(abs(sum(shares) - 100) < 1, f"shares that make no whole: {shares}")
    stage.node(0)["requestsPerSecond"] = 4321.0
    stage.show()
    browser.wait("document.querySelector('#rows tr').innerText.includes('4,321')", "a figure that changes")


def troubles_are_seen(browser, stage):
    gone, ill = stage.node(4)["node"], stage.node(9)["node"]
    stage.node(4).update(trouble={"isUnreachable": True, "reason": "connection refused"}, age=20)
    stage.node(9).update(isRecovering=True, recoveryFound=1000, recoveryDone=430)
    stage.show()
    browser.wait("document.querySelector('#verdict').textContent === '2 of 31 nodes need attention.'", "the verdict on two that are not well")
    expect("Unreachable" in row(browser, gone), f"the row of a node that is gone: {row(browser, gone)}")
    expect("Recovering 43 %" in row(browser, ill), f"the row of a node that recovers: {row(browser, ill)}")
    said = browser.text("#problems")
    expect(f"{gone} is unreachable: connection refused." in said and f"{ill} lost its memory" in said, f"what is said of them: {said}")
    # (Not by colour alone: each has a pattern of its own, and a sign.)
    fills = browser.value(f"""['{gone}', '{ill}', '{stage.node(0)["node"]}'].map((node) =>
        getComputedStyle(document.querySelector(`.arc[data-node="${{node}}"]`)).fill)""")
    expect("stripes" in fills[0] and "dots" in fills[1] and "url" not in fills[2], f"how they are drawn: {fills}")
    expect_equal(browser.value("[...document.querySelectorAll('.ring-sign')].map((sign) => sign.textContent).filter(Boolean).sort()"),
                 ["↻", "✕"], "signs beside the ring")


def each_trouble_has_its_words(browser, stage):
    for trouble, words, told in (
            ({"memcachedError": "it hangs"}, "No memcached", "it hangs"), ({"isClockAhead": True}, "Clock ahead", "refuses writes"),
            ({"epoch": 6}, "Behind", "older ring, of epoch 6"), ({"age": 8.2}, "Silent for 8 s", "has said nothing for 8 s"),
            ({"trouble": {"isUnreachable": False, "isUnproven": True, "reason": "-"}}, "Wrong token", "the peers’ token"),
            ({"trouble": {"isUnreachable": False, "isUnproven": False, "reason": "busy"}}, "Does not say", "busy"),
            ({"troubles": ["log: full"]}, "Trouble", "log: full")):
        node = stage.node(12)
        before = dict(node)
        node.update(trouble)
        stage.show()
        browser.wait(f"document.querySelector('#rows [data-node=\"{node['node']}\"]').innerText.includes('{words}')", f"a node with {trouble}")
        expect(f"{node['node']} " in browser.text("#problems") and told in browser.text("#problems"), f"what is said of {trouble}: {browser.text('#problems')}")
        node.clear()
        node.update(before)
    # (One that tells something else than this page knows.)
    troubles = stage.node(12).pop("troubles")
    stage.show()
    browser.wait("document.querySelector('#verdict').textContent.includes('does not understand')", "an update that can't be shown")
    stage.node(12)["troubles"] = troubles
    stage.show()
    browser.wait("document.querySelector('#verdict').textContent === '2 of 31 nodes need attention.'", "the next one is shown")
    expect_equal(browser.value("document.body.className"), "", "the page's looks after it")
    browser.wait("/L/.test(document.querySelector('#history-requests path:last-child')?.getAttribute('d') ?? '')", "a line of the last seconds")


def markup_is_text(browser, stage):
    target = f"/copies?key={quote(MARKUP, safe='')}"
    stage.answers[target] = (200, json.dumps({"slot": 77, "epoch": 7, "copies": [
        {"node": MARKUP, "state": "stored", "version": "0" * 24, "bytes": 3, "contentType": MARKUP, "writtenMilliseconds": 0},
        {"node": "10.0.0.2:5000", "state": "unknown", "reason": MARKUP}]}))
    stage.node(4)["trouble"]["reason"] = MARKUP
    stage.show()
    browser.fill("#key", MARKUP)
    browser.press("Enter")
    browser.wait("document.querySelector('#key-answer table') !== null", "an answer")
    expect_equal(browser.text("#key-answer .asked"), MARKUP, "a key full of markup")
    browser.wait(f"document.querySelector('#problems').innerText.includes({json.dumps(MARKUP)})", "a reason full of markup")
    expect_equal(browser.value("[document.title, document.querySelectorAll('main img, main script').length]"), ["Ring", 0], "what became of the markup")


def copies_that_differ(browser, stage):
    copies = [{"node": f"10.0.0.{number}:5000", "state": "stored", "version": f"{version:024x}", "bytes": 3, "writtenMilliseconds": 0}
              for number, version in ((1, 5), (2, 9), (3, 9))]
    stage.answers["/copies?key=differs"] = (200, json.dumps({"slot": 78, "epoch": 7, "copies": copies}))
    browser.fill("#key", "differs")
    browser.press("Enter")
    browser.wait("document.querySelector('#key-answer').innerText.includes('Its copies differ')", "the verdict on copies that differ")
    expect_equal(browser.value("[...document.querySelectorAll('#key-answer tbody tr .state span:last-child')].map((one) => one.textContent)"),
                 ["Stored, older", "Stored", "Stored"], "which of them are old")


def by_keyboard(browser, stage):
    browser.value("document.querySelector('#key').value = ''; document.querySelector('#key').dispatchEvent(new Event('input', {bubbles: true}))")
    browser.value("document.querySelector('#token-open').focus()")
    browser.press("Tab")
    expect_equal(browser.value("document.activeElement.dataset.node"), stage.node(0)["node"], "where Tab leads from the head of the page")
    browser.press("ArrowRight")
    second = browser.value("document.activeElement.dataset.node")
    expect(second != stage.node(0)["node"], "an arrow key that leads nowhere")
    expect_equal(browser.value("document.querySelector('#centre-1').textContent"), second, "the middle of the ring")
    browser.press("Enter")
    expect_equal(browser.text("#detail-title"), second, "the node that was chosen")
    expect_equal(browser.value("document.querySelector('#rows tr.lit').dataset.node"), second, "its row")
    label = browser.value("document.activeElement.getAttribute('aria-label')")
    expect(second in label and "Up" in label and "%" in label, f"how it is read out: {label}")
    browser.press("Tab")
    expect_equal(browser.value("document.activeElement.id"), "detail-remove", "the ring is one stop of the Tab key")
    browser.press("Enter")
    expect_equal(browser.value("[document.querySelector('input[name=verb]:checked').value, document.querySelector('#leaver').value]"),
                 ["remove", second], "the change that is prepared")


def on_a_phone(browser, stage):
    opened(browser, stage.address)
    browser.resize(360, 780, is_phone=True)
    browser.pause(0.3)
    expect_equal(browser.value("document.documentElement.scrollWidth"), 360, "the page's width on a phone, in pixels")
    wide = browser.value("""[...document.querySelectorAll('main *')].filter((one) => one.checkVisibility() && !one.closest('svg, .unseen, thead')
        && one.getBoundingClientRect().right > 361).map((one) => one.tagName + '.' + one.className)""")
    expect_equal(wide, [], "what does not fit on it")
    browser.resize(1280, 900)


PLAN = {"change": "remove 10.0.0.1:5000", "positions": [], "slotsWithNewOwner": 333, "copiesOfSlots": 30000, "copiesOfSlotsMoved": 1000,
        "estimatedPairsMoved": 1234, "silent": [], "nodes": [
            {"node": "10.0.0.1:5000", "slotsOwnedBefore": 333, "slotsOwnedAfter": 0, "slotsHeldBefore": 1000, "slotsHeldAfter": 0}]}


def preview(browser, stage, **different):
    stage.answers["/plan/remove_node/10.0.0.1:5000"] = (200, json.dumps({**PLAN, **different}))
    browser.click("input[name=verb][value=remove]")
    browser.value("document.querySelector('#leaver').value = '10.0.0.1:5000'")
    browser.click("#edit-form button[type=submit]")
    browser.wait("!document.querySelector('#plan').hidden", "a preview")


def a_plan_is_of_one_ring(browser, stage):
    preview(browser, stage, change=MARKUP, silent=[MARKUP], nodes=[{**PLAN["nodes"][0], "node": MARKUP}])
    expect_equal(browser.text("#plan-rows td"), MARKUP, "a node full of markup")
    said = browser.text("#plan-text")
    expect(said.count(MARKUP) == 2 and "did not say how many" in said, f"what the preview says: {said}")
    expect_equal(browser.value("[document.title, document.querySelectorAll('main img, main script').length]"), ["Ring", 0], "what became of the markup")
    stage.ring["epoch"] = 8
    for node in stage.state["nodes"]:
        node["epoch"] = 8
    stage.show(is_ring_new=True)
    browser.wait("document.querySelector('#plan').hidden", "the preview of another ring is dropped")
    expect("has changed since" in browser.text("#edit-answer"), f"what is said of it: {browser.text('#edit-answer')}")


def a_token_is_asked_for(browser, stage):
    stage.token = "s3cret-token"
    browser.open(f"http://{stage.address}/ui")
    browser.wait("document.querySelector('#connection')?.dataset.state === 'refused'", "the page says that it was refused")
    browser.wait("!document.querySelector('#token-panel').hidden", "it asks for a token")
    browser.fill("#token", "s3cret-token")
    browser.press("Enter")
    browser.wait("document.querySelector('#connection').dataset.state === 'live'", "the page is live with a token")
    expect(("GET", "/ui/events", "Bearer s3cret-token") in stage.asked, "the token in a request's header")
    kept = browser.value("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, document.querySelector('#token').value])")
    expect_equal(kept, '[{},{},"",""]', "where the token may not be")


def changes_carry_the_token(browser, stage):
    stage.answers["/remove_node/10.0.0.1:5000"] = (200, "OK")
    preview(browser, stage)
    browser.click("#make")
    browser.wait("document.querySelector('#edit-answer').textContent.startsWith('Made')", "a change is made")
    expect(("POST", "/remove_node/10.0.0.1:5000", "Bearer s3cret-token") in stage.asked, f"the change, with the token: {stage.asked[-3:]}")


def under_way(stage, name):
    stage.ring["change"] = {"id": name, "sentence": f"do {name}", "step": "copying", "from": stage.ring["positions"], "to": stage.ring["positions"]}
    stage.show(is_ring_new=True)


def an_answer_is_of_one_change(browser, stage):
    stage.answers["/abort_change"] = (409, "It can't be undone any more.\n")
    under_way(stage, "one")
    browser.wait("document.querySelector('#change-title').textContent === 'Under way: do one'", "a change")
    browser.click("#abort")
    browser.wait("document.querySelector('#abort-answer').textContent.includes('undone any more')", "the answer")
    expect_equal(stage.asked[-1], ("POST", "/abort_change", "Bearer s3cret-token"), "how it was asked for")
    under_way(stage, "two")
    browser.wait("document.querySelector('#change-title').textContent === 'Under way: do two'", "the next change")
    expect_equal(browser.value("document.querySelector('#abort-answer').textContent"), "", "what is said of the one before")
    del stage.ring["change"]
    stage.show(is_ring_new=True)
    browser.wait("document.querySelector('#change').hidden", "no change")


def a_token_is_forgotten(browser, stage):
    browser.click("#token-open")
    browser.click("#token-forget")
    browser.wait("document.querySelector('#connection').dataset.state === 'refused'", "without the token the page is refused")
    expect_equal(stage.asked[-1], ("GET", "/ui/events", None), "a request without a token")
    browser.wait("document.querySelector('#verdict').textContent.startsWith('No word from this node')", "what was shown is no more how it is")
    stage.token = None
    browser.click("#token-forget")
    browser.wait("document.querySelector('#connection').dataset.state === 'live'", "where no token is wanted, none is needed")


def a_refusal_is_not_always_for_a_token(browser, stage):
    browser.click("#token-open")
    browser.click("#token-open")
    for headers, is_asked in (([], False), ([("WWW-Authenticate", 'Bearer error="insufficient_scope"')], True)):
        stage.answers["/copies?key=refused"] = (403, f"No, for a reason ({is_asked}).\n", *headers)
        browser.fill("#key", "refused")
        browser.press("Enter")
        browser.wait(f"document.querySelector('#key-answer').innerText.includes('No, for a reason ({str(is_asked)})')", "the refusal")
        expect_equal(browser.value("document.querySelector('#token-panel').hidden"), not is_asked, f"no token is asked for, after a 403 with {headers}")


def silence_is_shown(browser, stage):
    opened(browser, stage.address)
    says_all_is_well(browser, 3)
    node = stage.node(0)["node"]
    stage.node(1).update(errorsPerSecond=5.0)
    stage.show()
    browser.wait("document.querySelector('#sum-errors').textContent !== '0'", "a figure")
    for cause in ("mute", "away"):
        asked = len(stage.asked)
        setattr(stage, f"is_{cause}", True)
        browser.wait("/^No word from this node for [0-9]+ s; this is how it was[.]$/.test(document.querySelector('#verdict').textContent)",
                     f"the verdict on one that is {cause}")
        browser.value("window.spoken = document.querySelector('#verdict').firstChild; 0")
        expect_equal(browser.value("document.querySelector('#verdict').getAttribute('aria-live')"), "polite", "the verdict is read out")
        # (The rows follow with the next frame.)
        browser.wait(f"document.querySelector('#rows [data-node=\"{node}\"]').innerText.includes('Was: Up')", "a row while nothing is heard", seconds=2)
        expect("Was: Up" in browser.value("document.querySelector('.arc').getAttribute('aria-label')"), "how a node is read out")
        expect_equal(browser.value("[...document.querySelectorAll('.figures dd span')].map((one) => one.textContent)"), ["–"] * 6, "the sums")
        expect_equal(browser.value("[...document.querySelectorAll('.picture, #rows')].map((one) => getComputedStyle(one).filter)"),
                     ["grayscale(1)"] * 2, "colours")
        seconds = browser.text("#unheard-for")
        browser.wait(f"document.querySelector('#unheard-for').innerText !== '{seconds}'", "the seconds go on")
        expect(browser.value("document.querySelector('#verdict').firstChild === window.spoken && document.querySelector('#unheard-for').ariaHidden === 'true'"),
               "the verdict is read out again for each second")
        browser.wait("document.querySelector('#connection[data-state=lost] #connection-text')?.textContent === 'Reconnecting'",
                     "the connection is shown as lost")
        eventually(5, "a silent connection is given up, and made anew", lambda: ("GET", "/ui/events", None) in stage.asked[asked:])
        setattr(stage, f"is_{cause}", False)
        says_all_is_well(browser, 3)
        expect_equal(browser.value("[document.body.className, document.querySelector('#connection').dataset.state]"), ["", "live"], "afterwards")
        expect("✓ Up" in row(browser, node), f"a row afterwards: {row(browser, node)}")


def a_page_that_nobody_sees(browser, stage):
    hide = "Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }}); document.dispatchEvent(new Event('visibilitychange'))"
    browser.value(hide.format("true"))
    browser.wait("document.querySelector('#connection').dataset.state === 'paused'", "a hidden page pauses")
    browser.wait("document.querySelector('#verdict').textContent.startsWith('No word from this node')", "and does not say that all is well", seconds=2)
    eventually(5, "a hidden page listens to nothing", lambda: stage.watching == 0)
    browser.value(hide.format("false"))
    browser.wait("document.querySelector('#connection').dataset.state === 'live'", "a page that is seen again is live")
    says_all_is_well(browser, 3)


def a_token_is_revoked(browser, stage):
    stage.token = "another"
    stage.is_away = True
    eventually(5, "the stream ends", lambda: stage.watching == 0)
    stage.is_away = False
    browser.wait("document.querySelector('#connection').dataset.state === 'refused'", "the page is refused")
    browser.wait("document.querySelector('#verdict').textContent.startsWith('No word from this node')", "the verdict then")
    expect(not browser.value("document.querySelector('#token-panel').hidden"), "no token is asked for")


def a_node_without_a_ring(browser, stage):
    node = stage.ring["node"]
    stage.node(0).update(epoch=0)
    opened(browser, stage.address)
    browser.wait("document.querySelectorAll('#rows tr').length === 1", "a row for the node itself")
    expect("Up, in no ring" in row(browser, node), f"its row: {row(browser, node)}")
    stage.node(0).update(memcachedError="it hangs")
    stage.show()
    browser.wait("document.querySelector('#problems').innerText.includes('it hangs')", "its trouble is told")
    expect_equal(browser.text("#verdict"), "This node has no ring yet.", "the verdict on it")


def many_nodes_stay_smooth(browser, stage, context):
    opened(browser, stage.address)
    browser.wait("document.querySelectorAll('.arc').length === 100", "a hundred nodes")
    # (What an update costs is its script and the layout and style that it makes necessary, which is made at once here.)
    browser.value("""window.costs = []; new PerformanceObserver((list) => {
        for (const entry of list.getEntriesByName('nodes')) {
            const began = performance.now();
            document.body.getBoundingClientRect();
            window.costs.push(entry.duration + performance.now() - began);
        }}).observe({ entryTypes: ['measure'] })""")
    for number in range(40):
        for node in stage.state["nodes"]:
            node["requestsPerSecond"] += 17.3
            node["items"] += 31
            node["p99Milliseconds"] = 1 + number % 7 / 3
        stage.show()
        browser.pause(0.06)
    costs = sorted(browser.value("window.costs"))
    expect(len(costs) >= 20, f"too few updates were measured: {costs}")
    context.note(f"100 nodes at 64 positions: an update takes {costs[len(costs) // 2]:.1f} ms (median), {costs[-1]:.1f} ms at most")
    expect(costs[len(costs) // 2] < 16, f"updates take longer than a frame, in ms: {costs}")


# A real ring

def files_are_served(cluster):
    node = cluster.node(1)
    for target, kind in (("/ui", "text/html; charset=utf-8"), ("/ui/", "text/html; charset=utf-8"), ("/ui/page.css", "text/css; charset=utf-8"),
                         ("/ui/page.js", "text/javascript; charset=utf-8"), ("/ui/icon.svg", "image/svg+xml")):
        answer = node.get(target)
        expect_equal((answer.status, answer.header("Content-Type"), answer.header("Content-Security-Policy")), (200, kind, POLICY), target)
        expect_equal((answer.header("X-Content-Type-Options"), answer.header("Referrer-Policy"), answer.header("Cache-Control")),
                     ("nosniff", "no-referrer", "no-cache"), f"headers of {target}")
        expect_equal((answer.header("Cross-Origin-Opener-Policy"), answer.header("Cross-Origin-Resource-Policy")), ("same-origin",) * 2,
                     f"who may have to do with {target}")
        again = ask(node.address, request_bytes("GET", target, headers=[("If-None-Match", answer.header("ETag"))]))
        expect_equal((again.status, again.body), (304, b""), f"{target}, which the browser has already")
    expect_equal(node.get("/ui/nothing").status, 404, "a file that is none")
    expect_equal(cluster.proxy.get("/ui").status, 200, "the page by way of the balancer")


def a_real_ring(browser, cluster):
    opened(browser, cluster.node(2).address)
    browser.wait("document.querySelector('#verdict').textContent === 'All 3 nodes are up.'", "the verdict on a real ring")
    expect_equal(browser.value("document.querySelectorAll('.arc').length"), 2, "nodes in the ring")
    expect("standby" in row(browser, cluster.node(3).address), "the standby's row")
    expect("50.0 %" in row(browser, cluster.node(1).address), f"the share of a node: {row(browser, cluster.node(1).address)}")
    cluster.proxy.store(MARKUP, "red")
    browser.fill("#key", MARKUP)
    browser.press("Enter")
    browser.wait("document.querySelector('#key-answer').innerText.includes('copies are the same')", "a real pair's copies")
    expect_equal(browser.text("#key-answer .asked"), MARKUP, "the key as it was given")
    expect_equal(browser.value("document.querySelectorAll('#key-answer tbody tr').length"), 2, "its holders")
    browser.fill("#key", "nothing of that name")
    browser.press("Enter")
    browser.wait("document.querySelector('#key-answer').innerText.includes('There is no such pair')", "a key that is none")


def a_change(browser, cluster):
    newcomer = cluster.node(3).address
    for number in range(400):
        cluster.proxy.store(f"key{number}", "x")
    browser.fill("#newcomer", "nonsense")
    browser.click("#edit-form button[type=submit]")
    browser.wait("document.querySelector('#edit-answer').textContent.includes('literal ip:port')", "a name that is none is refused")
    browser.fill("#newcomer", newcomer)
    browser.click("#edit-form button[type=submit]")
    browser.wait("!document.querySelector('#plan').hidden", "a preview")
    said = browser.text("#plan-text")
    expect(f"would add {newcomer} at" in said and "of all copies move" in said, f"the preview: {said}")
    expect_equal(browser.value("document.querySelectorAll('#plan-rows tr').length"), 3, "nodes in the preview")
    expect_equal(cluster.node(1).status()["transition"], None, "a change that was only previewed")
    held = cluster.directory / "held"
    held.touch()
    for node in cluster.nodes:
        node.set_failpoints(f"ring.announce.crossing=hold:{held}")
    browser.click("#make")
    browser.wait("!document.querySelector('#change').hidden", "the change is shown while it is made")
    expect(f"add {newcomer}" in browser.text("#change-title"), f"its title: {browser.text('#change-title')}")
    browser.wait("document.querySelector('#steps [aria-current=step]') !== null", "its step")
    held.unlink()
    browser.wait("document.querySelector('#change').hidden", "the change is over", seconds=40)
    browser.wait("document.querySelector('#edit-answer').textContent.startsWith('Made')", "the page says so")
    browser.wait("document.querySelectorAll('.arc').length === 3", "the ring with three nodes")
    for node in cluster.nodes:
        node.set_failpoints()


def a_change_is_aborted(browser, cluster):
    held = cluster.directory / "held"
    held.touch()
    for node in cluster.nodes:
        node.set_failpoints(f"ring.announce.crossing=hold:{held}")
    newcomer, before = cluster.node(3), cluster.one_ring()
    removing = threading.Thread(target=lambda: cluster.node(1).get(f"/remove_node/{newcomer.address}", timeout=60))
    removing.start()
    browser.wait("document.querySelector('#change').hidden === false", "a change that another client makes is shown")
    expect(f"remove {newcomer.address}" in browser.text("#change-title"), f"its title: {browser.text('#change-title')}")
    browser.wait("document.querySelector('#steps [aria-current=step]')?.innerText.includes('Copying')", "it is copying")
    browser.click("#abort")
    browser.wait("document.querySelector('#change-title').innerText.startsWith('Undoing') || document.querySelector('#change').hidden", "it is being undone")
    held.unlink()
    browser.wait("document.querySelector('#change').hidden", "the change is over", seconds=40)
    browser.wait("document.querySelector('#edit-answer').textContent.startsWith('Given up and undone')", "the page says so")
    removing.join(60)
    for node in cluster.nodes:
        node.set_failpoints()
    expect_equal(browser.value("document.querySelectorAll('.arc').length"), 3, "nodes in the ring")
    expect_equal(cluster.one_ring(), before, "the ring")


def a_node_ends(browser, cluster):
    gone = cluster.node(1)
    gone.end_daemon()
    browser.wait(f"document.querySelector('#rows [data-node=\"{gone.address}\"]').innerText.includes('Unreachable')", "a node that ended is shown so")
    expect_equal(browser.text("#verdict"), f"{gone.address} needs attention.", "the verdict on it")
    gone.start_daemon()
    gone.wait_until_ready()
    says_all_is_well(browser, 3)
    # The node that tells: its workers are exchanged, and the page finds the next one by itself.
    streams = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/ui/events')).length"
    ended = browser.value(streams)
    cluster.node(2).supervisor.signal(1)
    browser.wait(f"{streams} > {ended}", "its stream ends with its worker", seconds=20)
    browser.wait("document.querySelector('#connection').dataset.state === 'live'", "the page is live after a reload", seconds=20)
    cluster.accept_present_workers()


def a_stream_is_renewed(browser, cluster):
    """Each stream ends after some minutes; here a failpoint says that they are over. Nobody sees it."""
    browser.value("""window.shown = []; new MutationObserver(() => window.shown.push(document.querySelector('#connection').dataset.state))
        .observe(document.querySelector('#connection'), { attributes: true }); 0""")
    streams = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/ui/events')).length"
    ended, node = browser.value(streams), cluster.node(2)
    node.set_failpoints("ring.watch=error")
    browser.wait(f"{streams} > {ended}", "the stream ends")
    node.set_failpoints()
    browser.wait("document.querySelector('#connection').dataset.state === 'live'", "the page is live")
    browser.pause(1.5)
    expect(not {"lost", "refused"} & set(browser.value("window.shown")), f"what was seen of it: {browser.value('window.shown')}")
    says_all_is_well(browser, 3)


def a_node_hangs(cluster):
    """Neither a look at the ring nor who asks for many keeps operators out, and by way of the balancer it is answered in time."""
    gone, node = cluster.node(1), cluster.node(3)
    key = next(key for key in (f"hangs{number}" for number in range(1000)) if cluster.one_ring() and
               gone.address in [copy["node"] for copy in node.json(f"/copies?key={key}")["copies"]])
    gone.pause_host()
    try:
        host, port = node.address.rsplit(":", 1)
        crowd = []
        try:
            for _ in range(140):
                one = socket.create_connection((host, int(port)), timeout=5)
                crowd.append(one)
                one.sendall(request_bytes("GET", f"/plan/remove_node/{gone.address}"))
            began = time.monotonic()
            expect_equal((node.get("/status").status, node.get("/abort_change").status), (200, 409), "what operators are told meanwhile")
            statuses = [one.recv(12)[9:12] for one in crowd]
            expect_equal(sorted(set(statuses)), [b"200", b"503"], f"answers to {len(crowd)} that ask for plans, after {time.monotonic() - began} s")
        finally:
            for one in crowd:
                one.close()
        proxy = cluster.proxy
        eventually(15, "the balancer knows that a node hangs", lambda: all(proxy.get("/health/ready").status == 200 for _ in range(6)))
        for target in (f"/plan/remove_node/{gone.address}", f"/copies?key={key}") * 3:
            began = time.monotonic()
            answer = proxy.get(target)
            took = time.monotonic() - began
            expect(answer.status == 200 and took < 1, f"{target} by way of the balancer, after {took:.2f} s: {answer}")
            report = json.loads(answer.body)
            silent = report["silent"] if "plan" in target else [copy["node"] for copy in report["copies"] if copy["state"] == "unknown"]
            expect_equal(silent, [gone.address], f"who did not answer, as {target} has it")
    finally:
        gone.resume_host()
    gone.wait_until_ready()
    for one in cluster.nodes:
        one.accept_present_workers()


def deaf_readers(cluster):
    """Readers that never read, in all places that a node has for its page."""
    host, port = cluster.node(3).address.rsplit(":", 1)
    readers = []
    for _ in range(WATCHERS):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        reader.settimeout(5)
        reader.connect((host, int(port)))
        reader.sendall(request_bytes("GET", "/ui/events"))
        readers.append(reader)
    return readers, time.monotonic()


def watches(node):
    host, port = node.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as watcher:
        watcher.sendall(request_bytes("GET", "/ui/events"))
        return watcher.recv(12)[9:12] == b"200"


def deaf_readers_are_cut_off(cluster, readers, since):
    eventually(max(45 + since - time.monotonic(), 1), "who takes nothing for 10 s gives its place up", lambda: watches(cluster.node(3)))
    for reader in readers:
        reader.close()
    # (A place is free once the node has noticed, at the next event, that its reader has gone.)
    time.sleep(2)


def nodes_are_asked_once_for_all(cluster):
    """However many look, each node is asked once a second; and not at all where nobody does."""
    node, asked = cluster.node(3), []
    host = cluster.unused_address().rsplit(":", 1)[0]
    with socket.create_server((host, 0)) as listener, ExitStack() as watchers:
        def count():
            while listener.fileno() >= 0:
                with suppress(OSError):
                    with listener.accept()[0] as connection:
                        connection.settimeout(2)
                        if connection.recv(4096).startswith(b"POST /peer/status "):
                            asked.append(time.monotonic())
        threading.Thread(target=count, daemon=True).start()
        ring = node.ring()
        expect_equal(node.install_ring(ring, replicas=2, standbys=[f"{host}:{listener.getsockname()[1]}"]).status, 200, "a standby that counts")
        # (Those that looked until now are noticed to be gone at the next event.)
        time.sleep(2.5)
        del asked[:]
        time.sleep(1.5)
        idle = len(asked)
        address = node.address.rsplit(":", 1)
        for _ in range(4):
            watcher = watchers.enter_context(socket.create_connection((address[0], int(address[1])), timeout=5))
            watcher.sendall(request_bytes("GET", "/ui/events"))
        time.sleep(5)
        seen = len(asked) - idle
        watchers.close()
        time.sleep(2)
        del asked[:]
        time.sleep(2.5)
        expect(4 <= seen <= 8 and idle == 0 and not asked, f"a standby was asked {seen} times in 5 s, {idle} times before, {len(asked)} times afterwards")


def watchers_are_bounded(cluster):
    node = cluster.node(3)
    host, port = node.address.rsplit(":", 1)
    watchers = []
    try:
        statuses = []
        for _ in range(WATCHERS + 2):
            watcher = socket.create_connection((host, int(port)), timeout=5)
            watchers.append(watcher)
            watcher.sendall(request_bytes("GET", "/ui/events"))
            statuses.append(watcher.recv(12)[9:12])
        expect_equal((statuses.count(b"200"), statuses.count(b"503")), (WATCHERS, 2), f"answers to {len(watchers)} that look: {statuses}")
    finally:
        for watcher in watchers:
            watcher.close()

    eventually(5, "places are free again once they have gone", lambda: watches(node))
