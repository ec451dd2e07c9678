-- SPDX-License-Identifier: Apache-2.0
-- Requests for these keys, with names (X-Request-ID, traceparent) or without.
--   wrk -s names.lua URL -- METHOD FILE_OF_KEYS NAMES
-- NAMES: none, id, trace (not sampled), both, sampled (id and a sampled trace), token (none, and the data token of names.py)

local requests = {}
local random = math.random

local function hex(count)
   local digits = {}
   for place = 1, count do digits[place] = string.format("%x", random(0, 15)) end
   return table.concat(digits)
end

function init(args)
   local method, file, names = args[1], args[2], args[3]
   math.randomseed(4711)
   for key in io.lines(file) do
      local headers = {}
      if names == "token" then headers["Authorization"] = "Bearer " .. string.rep("t", 64) end
      if names ~= "none" and names ~= "trace" and names ~= "token" then
         headers["X-Request-ID"] = hex(8) .. "-" .. hex(4) .. "-" .. hex(4) .. "-" .. hex(4) .. "-" .. hex(12)
      end
      if names ~= "none" and names ~= "id" and names ~= "token" then
         headers["traceparent"] = "00-" .. hex(31) .. "1-" .. hex(15) .. "1-0" .. (names == "sampled" and "1" or "0")
      end
      if method == "POST" then
         headers["Content-Type"] = "application/x-www-form-urlencoded"
         requests[#requests + 1] = wrk.format("POST", "/route", headers, "key=" .. key .. "&val=" .. string.rep("v", 100))
      else
         requests[#requests + 1] = wrk.format("GET", "/route?key=" .. key, headers)
      end
   end
end

function request() return requests[random(#requests)] end
