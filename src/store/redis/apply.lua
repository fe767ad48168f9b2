-- Applies a part of a batch: all of it is decided before the first write, since a script does not roll back.
local number, part, keep_for, strict, publishes = ARGV[5], ARGV[6], ARGV[7], ARGV[8] == '1', ARGV[9] == '1'
local most_posts, most_visitors, named = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])

local mark = redis.call('HMGET', batch, 'number', part)
if mark[1] and tonumber(mark[1]) > tonumber(number) then
    return redis.error_reply('LATER batch ' .. mark[1] .. ' was applied before batch ' .. number)
end
if mark[1] == number and mark[2] then
    -- A write, so that WAIT waits for what this connection has written.
    redis.call('EXPIRE', batch, keep_for)
    return {head(), mark[2], ''}
end

-- The posts as they are: 'likes visitors version era'. Each deletion begins an era; visitors of one before it do not
-- like the post any more.
local names, rows = {}, {}
for place = 1, named do
    names[place] = ARGV[12 + place]
end
local read = named > 0 and redis.call('HMGET', posts, unpack(names)) or {}
for place = 1, named do
    local row = {
        name = names[place], at = text(place - 1), likes = 0, fans = 0, version = 0, era = '0', minds = {}, asked = {},
    }
    if read[place] then
        local likes, fans, of, era = string.match(read[place], '^(%d+) (%d+) (%d+) (%d+)$')
        if not likes then
            return redis.error_reply('FORMAT the row of ' .. names[place] .. ' is not `likes visitors version era`')
        end
        row.kept, row.likes, row.fans, row.version, row.era = true, tonumber(likes), tonumber(fans), tonumber(of), era
    end
    row.old_likes, row.old_version = row.likes, row.version
    rows[place], rows[text(place)] = row, row -- a change names it by text
end

-- The visitors as they are: the highest `seq`, with a minus where they do not like the post, and '@era' past the first.
local first = 12 + named
for at = first + 1, #ARGV, 4 do
    local kind, row = ARGV[at + 1], rows[ARGV[at]]
    if kind == '+' or kind == '-' then
        local key = ARGV[at + 2]
        if row.minds[key] == nil then
            row.minds[key] = false
            row.asked[#row.asked + 1] = key
        end
    end
end
for place, row in ipairs(rows) do
    if #row.asked > 0 then
        local values = redis.call('HMGET', KEYS[4 + place], unpack(row.asked))
        for index, key in ipairs(row.asked) do
            local mind = {likes = false}
            if values[index] then
                local sign, seq, era = string.match(values[index], '^(%-?)(%d*)@?(%d*)$')
                if not sign then
                    return redis.error_reply('FORMAT a visitor of ' .. names[place] .. ' is not `seq`, `-seq` or `seq@era`')
                end
                mind.kept, mind.seq = true, tonumber(seq)
                mind.likes = sign == '' and (era == '' and '0' or era) == row.era
            end
            row.minds[key] = mind
        end
    end
end
-- The default counter has room in any case.
local kept_posts = redis.call('HLEN', posts) - redis.call('HEXISTS', posts, '')
local kept_visitors = tonumber(kept[7] or 0)

local outcomes, changes = {}, {}

local function has_room(row, likes)
    return row.likes + likes <= MOST and version + math.max(likes, 1) <= MOST
end

local function keep(row)
    if not row.kept and row.name ~= '' then
        if kept_posts >= most_posts then
            return false
        end
        kept_posts = kept_posts + 1
    end
    row.kept = true
    return true
end

local function unchanged(row, likes)
    local told = row.kept and math.max(row.version, floor) or 0
    return 'U ' .. text(row.likes) .. ' ' .. text(told) .. (likes and ' 1' or ' 0')
end

local function applied(row, versions, mind)
    version = version + versions
    row.version, row.changed = version, true
    local count = text(row.likes) .. ' ' .. text(version)
    changes[#changes + 1] = row.at .. ' ' .. text(versions) .. ' ' .. count .. mind .. '\n'
    return 'A ' .. count
end

local function change(row, kind, value, seq)
    if kind == 'l' then
        local likes = tonumber(value)
        if not has_room(row, likes) then
            return 'R L'
        end
        if not keep(row) then
            return 'R P'
        end
        row.likes = row.likes + likes
        return applied(row, likes, '')
    elseif kind == 's' then
        local likes = tonumber(value)
        if likes < row.fans then
            return 'R B'
        end
        if likes > MOST or not has_room(row, 0) then
            return 'R L'
        end
        if not keep(row) then
            return 'R P'
        end
        row.likes = likes
        return applied(row, 1, '')
    elseif kind == 'd' then
        if not row.kept then
            return unchanged(row, false)
        end
        if not has_room(row, 0) then
            return 'R L'
        end
        for _, mind in pairs(row.minds) do
            mind.likes = false
        end
        row.likes, row.fans, row.era = 0, 0, text(row.era + 1)
        return applied(row, 1, '')
    end
    local mind, likes = row.minds[value], kind == '+'
    seq = tonumber(seq)
    local late = seq and mind.seq and seq <= mind.seq
    if late or not seq and likes == mind.likes then
        return unchanged(row, mind.likes)
    end
    if likes ~= mind.likes and not has_room(row, likes and 1 or 0) then
        return 'R L'
    end
    if not mind.kept and kept_visitors >= most_visitors then
        return 'R V'
    end
    if not keep(row) then
        return 'R P'
    end
    -- Kept also where the mind is as it was, and after an unlike, so that a like from before it finds its `seq`.
    local differs = likes ~= mind.likes
    local keeps = likes or seq or mind.seq
    if keeps and not mind.kept then
        kept_visitors = kept_visitors + 1
    elseif mind.kept and not keeps then
        kept_visitors = math.max(kept_visitors - 1, 0)
    end
    mind.kept, mind.likes, mind.seq, mind.said = keeps and true, likes, seq or mind.seq, true
    if not differs then
        return unchanged(row, likes)
    end
    local more = likes and 1 or -1
    row.fans, row.likes = row.fans + more, row.likes + more
    return applied(row, 1, kind .. value)
end

for at = first + 1, #ARGV, 4 do
    local outcome = change(rows[ARGV[at]], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
    outcomes[#outcomes + 1] = outcome
    if strict and string.sub(outcome, 1, 1) == 'R' then
        return {head(), table.concat(outcomes, ';'), ''}
    end
end

-- From here on nothing is refused any more.
begin()
local kept_rows, not_top, on_top = {}, {}, {}

local function add(list, first, second)
    list[#list + 1] = first
    list[#list + 1] = second
end

-- One call for all, since each costs about as much as what it does.
local function call(command, key, arguments)
    if #arguments > 0 then
        redis.call(command, key, unpack(arguments))
    end
end

for place, row in ipairs(rows) do
    local name = names[place]
    if row.changed then
        add(kept_rows, name, table.concat({text(row.likes), text(row.fans), text(row.version), row.era}, ' '))
        -- Of as many likes, the one that had them first comes first. The default counter is not among them.
        if name ~= '' and row.old_likes > 0 then
            add(not_top, string.format(PADDED, MOST - row.old_version) .. name)
        end
        if name ~= '' and row.likes > 0 then
            add(on_top, text(row.likes), string.format(PADDED, MOST - row.version) .. name)
        end
    elseif row.kept and not read[place] then
        add(kept_rows, name, '0 0 0 0')
    end
    local said, forgotten = {}, {}
    for _, key in ipairs(row.asked) do
        local mind = row.minds[key]
        if mind.said and mind.kept then
            local value = (mind.likes and '' or '-') .. (mind.seq and text(mind.seq) or '')
            add(said, key, value .. (row.era ~= '0' and '@' .. row.era or ''))
        elseif mind.said then
            add(forgotten, key)
        end
    end
    call('HSET', KEYS[4 + place], said)
    call('HDEL', KEYS[4 + place], forgotten)
end
call('HSET', posts, kept_rows)
call('ZREM', top, not_top)
call('ZADD', top, on_top)
redis.call('HSET', meta, 'version', text(version), 'visitors', text(kept_visitors))
local told = table.concat(outcomes, ';')
if mark[1] and mark[1] ~= number then
    redis.call('DEL', batch)
end
redis.call('HSET', batch, 'number', number, part, told)
redis.call('EXPIRE', batch, keep_for)
if #changes == 0 then
    return {head(), told, ''}
end
local message = head() .. ' ' .. named .. '\n' .. table.concat(names, '\n') .. '\n' .. table.concat(changes)
if publishes then
    redis.call('PUBLISH', channel, message)
    message = ''
end
return {head(), told, message}
