-- Sets the likes of a post by hand, so that all servers show it: see REDIS.md. 0 takes back those of its visitors too.
local posts, top, meta = KEYS[1], KEYS[2], KEYS[3]
local channel, post, likes = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function text(number)
    return string.format('%.0f', number)
end

local function member(version)
    return string.format('%016.0f', 9007199254740991 - version) .. post
end

local row = redis.call('HGET', posts, post) or '0 0 0 0'
local was, visitors, version, era = string.match(row, '^(%d+) (%d+) (%d+) (%d+)$')
if likes == 0 then
    visitors, era = 0, era + 1
elseif likes < tonumber(visitors) then
    return redis.error_reply('ERR more visitors than that like the post')
end
local of = redis.call('HMGET', meta, 'floor', 'version', 'base', 'previous')
local new = tonumber(of[2]) + 1
redis.call('ZREM', top, member(version))
if likes > 0 and post ~= '' then
    redis.call('ZADD', top, text(likes), member(new))
end
redis.call('HSET', posts, post, table.concat({text(likes), visitors, text(new), era}, ' '))
redis.call('HSET', meta, 'version', text(new))
redis.call('PUBLISH', channel, table.concat({of[1], of[2], text(new), of[3], of[4], 0, 1}, ' ')
    .. '\n' .. post .. '\n0 1 ' .. text(likes) .. ' ' .. text(new) .. '\n')
return was .. ' -> ' .. text(likes)
