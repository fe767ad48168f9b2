#!lua
-- What each script begins with: what is kept of the whole, and whether this Redis goes on where the last one was.
--
-- A Redis that has another run id than the one before it may have lost the last changes: it was restarted, or a replica
-- was promoted. So versions go on far above all that anybody can have seen, and no version ever means two counts.
local posts, top, meta, batch = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local channel, run, seen, server = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local MOST, JUMP = 9007199254740991, 1000000000

-- Where a Redis of 32 bits writes no larger numbers so, as one with a fraction, which takes longer.
local whole = string.format('%d', MOST) == '9007199254740991'
local PLAIN, PADDED = whole and '%d' or '%.0f', whole and '%016d' or '%016.0f'

local function text(number)
    return string.format(PLAIN, number)
end

local kept = redis.call('HMGET', meta, 'format', 'run', 'version', 'floor', 'base', 'previous', 'visitors')
if kept[1] and kept[1] ~= '1' then
    return redis.error_reply('FORMAT its format is ' .. kept[1] .. ', of a newer version of live-likes')
end
local version, floor = tonumber(kept[3] or 0), tonumber(kept[4] or 0)
local base, previous = tonumber(kept[5] or 0), tonumber(kept[6] or 0)
local before = version
local begins = kept[2] ~= run
if begins then
    base, previous = version, floor
    if version > 0 or seen > 0 then
        version = math.min(math.max(version, seen) + JUMP, MOST)
        floor = version
    end
    before = version
end

local function begin()
    if begins then
        redis.call('HSET', meta, 'format', 1, 'run', run, 'version', text(version), 'floor', text(floor),
            'base', text(base), 'previous', text(previous))
    end
end

-- The line that each message begins with, and each answer.
local function head()
    return table.concat({text(floor), text(before), text(version), text(base), text(previous), server}, ' ')
end
