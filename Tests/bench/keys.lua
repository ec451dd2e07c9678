-- SPDX-License-Identifier: Apache-2.0
-- The requests of one benchmark: made once, then drawn at random. Of POSTs each comes once before, so that all keys are stored.
--   wrk -s keys.lua URL -- METHOD COUNT [QUERY]

local requests = {}
local random = math.random
local first = 0

local function pad(number)
   return string.format("%s%07d", string.rep("v", 93), number)
end

function init(args)
   local method, count, query = args[1], tonumber(args[2]), args[3]
   -- Every thread starts the same sequence; there is one thread.
   math.randomseed(4711)
   first = method == "POST" and 0 or count
   for number = 0, count - 1 do
      local key = "bench-" .. number
      if method == "POST" then
         local headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }
         requests[number + 1] = wrk.format("POST", "/route" .. (query and "?" .. query or ""), headers, "key=" .. key .. "&val=" .. pad(number))
      else
         requests[number + 1] = wrk.format("GET", "/route?key=" .. key .. (query and "&" .. query or ""))
      end
   end
end

function request()
   if first < #requests then
      first = first + 1
      return requests[first]
   end
   return requests[random(#requests)]
end
