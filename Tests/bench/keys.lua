-- SPDX-License-Identifier: Apache-2.0
-- The requests of one benchmark: made once, then drawn at random. Of POSTs each comes once before, so that all keys are
-- stored.
--   wrk -s keys.lua URL -- GET|POST COUNT [NAME=VALUE...]
--     as      whose way of asking: store (nginx's module, too), webdis, etcd
--     bytes   of each value (100)
--     prefix  of the keys, which are numbered (bench-)
--     file    of the keys, one a line, instead of numbered ones
--     query   of /route, beside the key
--     lazily  yes: a GET is made when it is drawn, for more keys than there is room for their requests
--     once    yes: ends when every POST has been answered
-- Prints `figures`, requests a second, errors, and of the latency the median and the 99th percentile in µs.

local requests = {}
local random = math.random
local first = 0

-- wrk asks for a request to look at before it begins; that is not sent.
local function next_of(all)
   first = first + 1
   return all[first] or all[1]
end

local function value(number, bytes)
   return string.format("%s%07d", string.rep("v", bytes - 7), number)
end

local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
   local encoded = {}
   for place = 1, #text, 3 do
      local a, b, c = text:byte(place, place + 2)
      local bits = a * 65536 + (b or 0) * 256 + (c or 0)
      for part = 0, 3 do
         local digit = math.floor(bits / 64 ^ (3 - part)) % 64 + 1
         encoded[#encoded + 1] = digits:sub(digit, digit)
      end
   end
   local padding = (3 - #text % 3) % 3
   return table.concat(encoded):sub(1, -1 - padding) .. string.rep("=", padding)
end

-- A long value begins with so many equal letters that they are quicker repeated than encoded.
local function base64_value(number, bytes)
   local groups = math.floor((bytes - 7) / 3)
   return string.rep(base64("vvv"), groups) .. base64(value(number, bytes):sub(groups * 3 + 1))
end

local form = { ["Content-Type"] = "application/x-www-form-urlencoded" }
local json = { ["Content-Type"] = "application/json" }

local ways = {
   store = {
      GET = function(key, _, options)
         return wrk.format("GET", "/route?key=" .. key .. (options.query and "&" .. options.query or ""))
      end,
      POST = function(key, number, options)
         local path = "/route" .. (options.query and "?" .. options.query or "")
         return wrk.format("POST", path, form, "key=" .. key .. "&val=" .. value(number, options.bytes))
      end,
   },
   webdis = {
      GET = function(key) return wrk.format("GET", "/GET/" .. key .. ".txt") end,
      POST = function(key, number, options)
         return wrk.format("PUT", "/SET/" .. key, nil, value(number, options.bytes))
      end,
   },
   etcd = {
      GET = function(key) return wrk.format("POST", "/v3/kv/range", json, '{"key":"' .. base64(key) .. '"}') end,
      POST = function(key, number, options)
         local body = '{"key":"' .. base64(key) .. '","value":"' .. base64_value(number, options.bytes) .. '"}'
         return wrk.format("POST", "/v3/kv/put", json, body)
      end,
   },
}

function init(args)
   local method, count = args[1], tonumber(args[2])
   local options = { as = "store", bytes = "100", prefix = "bench-" }
   for place = 3, #args do
      local name, given = args[place]:match("^(%l+)=(.*)$")
      options[name] = given
   end
   options.bytes = tonumber(options.bytes)
   -- Every thread starts the same sequence; there is one thread.
   math.randomseed(4711)
   local way = ways[options.as][method]
   if options.lazily then
      local before, after = way("@", 0, options):match("^(.-)@(.*)$")
      before = before .. options.prefix
      request = function() return before .. random(0, count - 1) .. after end
      return
   end
   if options.file then
      for key in io.lines(options.file) do requests[#requests + 1] = way(key, #requests, options) end
   else
      for number = 0, count - 1 do requests[number + 1] = way(options.prefix .. number, number, options) end
   end
   first = method == "POST" and -1 or #requests
   if options.once then
      local answered, refused = 0, 0
      -- (wrk's main thread sleeps until the time is over, whatever its others do.)
      response = function(status)
         answered = answered + 1
         if status >= 400 then refused = refused + 1 end
         if answered == #requests then
            io.write(string.format("figures 0 %d 0 0\n", refused))
            io.flush()
            os.exit(0)
         end
      end
   end
end

function request()
   if first < #requests then return next_of(requests) end
   return requests[random(#requests)]
end

function done(summary, latency)
   local failed = summary.errors
   local errors = failed.connect + failed.read + failed.write + failed.status + failed.timeout
   local rate = summary.requests / summary.duration * 1e6
   io.write(string.format("figures %.0f %d %.0f %.0f\n", rate, errors, latency:percentile(50), latency:percentile(99)))
end
