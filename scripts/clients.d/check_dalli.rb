# Dalli: the binary protocol from Ruby, with quiet commands in `multi` blocks and behind multi-gets.
require 'dalli'

SERVER = "127.0.0.1:#{ARGV[0]}".freeze
LARGE = Random.new(900).bytes(900 * 1024)
TOO_LARGE = Random.new(2048).bytes(2 * 1024 * 1024)
# With the root of the server's certificate the check runs through TLS.
TLS = ARGV[1] && OpenSSL::SSL::SSLContext.new.tap do |context|
  context.set_params(ca_file: ARGV[1], verify_mode: OpenSSL::SSL::VERIFY_PEER)
end
# The sockets of this version do not know their server when TLS is around them, and a multi-get asks for it.
Dalli::Socket::SSLSocket.class_eval { def server = io.server } if TLS
$count = 0
Dalli.logger.level = Logger::FATAL

def short(value)
  value.inspect[0, 200]
end

# One check: the same value, and no nil for a false.
def same(got, want, what = '')
  $count += 1
  raise "#{what}: got #{short(got)}, want #{short(want)}" unless got == want
end

def refused(error, word)
  yield
rescue error => e
  same(e.message.include?(word), true, "#{word} in #{e.message}")
else
  raise "no #{error}"
end

def client(**options)
  Dalli::Client.new(SERVER, socket_timeout: 10, compress: false, value_max_bytes: 4 * 1024 * 1024,
                            ssl_context: TLS, **options)
end

mc = client

# Storing and reading many: quiet sets, and quiet gets with their keys behind one another.
many = (0...100).to_h { |i| ["many:#{i}", "value #{i}"] }
mc.multi { many.each { |key, value| mc.set(key, value) } }
same(mc.get_multi(many.keys + ['absent']), many)
uniques = mc.get_multi_cas(*many.keys)
same(uniques.transform_values(&:first), many)
same(uniques.values.map(&:last).uniq.size, 100, 'each store has a unique of its own')
mc.multi do
  mc.add('many:0', 'x')
  mc.add('fresh', 'y')
  mc.replace('many:1', 'z')
  mc.replace('absent', 'z')
  mc.delete('many:2')
  mc.delete('absent')
  mc.set('many:3', TOO_LARGE)
end
same(mc.get_multi('many:0', 'many:1', 'many:2', 'many:3', 'fresh', 'absent'),
     { 'many:0' => 'value 0', 'many:1' => 'z', 'fresh' => 'y' }, 'errors of quiet commands')
mc.multi { many.each_key { |key| mc.delete(key) } }
same(mc.get_multi(many.keys), {})
same(mc.get('absent'), nil)

# add, replace, append, prepend.
same(mc.add('mode', 'b', 0, raw: true).is_a?(Integer), true)
same(mc.add('mode', 'x'), false)
same(mc.append('mode', 'c'), true)
same(mc.prepend('mode', 'a'), true)
same(mc.get('mode', raw: true), 'abc')
same(mc.append('absent', 'x'), false)
same(mc.prepend('absent', 'x'), false)
same(mc.replace('mode', 'd').is_a?(Integer), true)
same(mc.get('mode'), 'd')
same(mc.get_cas('absent').first, nil)
same(mc.fetch('fetched') { 'loaded' }, 'loaded')
same(mc.fetch('fetched') { 'again' }, 'loaded')

# cas. A store answers with the new unique.
first = mc.set('cas', 'one')
same(mc.get_cas('cas'), ['one', first])
second = mc.set_cas('cas', 'two', first)
same(second != first, true)
same(mc.set_cas('cas', 'three', first), false, 'a unique is good for one store')
same(mc.replace_cas('cas', 'three', first), false)
same(mc.replace_cas('cas', 'three', second).is_a?(Integer), true)
same(mc.delete_cas('cas', second), false)
same(mc.get('cas'), 'three')
same(mc.delete_cas('cas', mc.get_cas('cas').last), true)
same(mc.cas('cas') { 'x' }, nil, 'nothing to change')
mc.set('cas', 1)
same(mc.cas('cas') { |value| value + 1 }.is_a?(Integer), true)
same(mc.cas('cas') { |value| mc.set('cas', 7) && value }, false, 'someone stored between')
same(mc.get('cas'), 7)

# incr, decr: with an initial value, and without.
same(mc.incr('n', 5), nil)
same(mc.decr('n', 5), nil)
same(mc.incr('n', 5, 100, 10), 10)
same(mc.incr('n', 5), 15)
same(mc.decr('n', 6), 9)
same(mc.decr('n', 100), 0)
same(mc.decr('big', 1, 0, 2**63), 2**63)
mc.set('n', (2**64) - 1, 0, raw: true)
same(mc.get('n', raw: true), '18446744073709551615')
same(mc.incr('n', 2), 1, 'wraps at 2^64')
mc.set('word', 'abc', 0, raw: true)
refused(Dalli::DalliError, 'Response error 6') { mc.incr('word') }
same(mc.get('word'), 'abc')

# touch, gat, expiry. The wire has no sign: a -1 is a time in 2106 for memcached, and over at once for ketch, as in text; and the client
# moves a past into the future.
ketch = mc.stats.values.first.key?('ketch_version')
mc.set('unsigned', 'v', -1)
same(mc.get('unsigned'), ketch ? nil : 'v')
mc.set('t', 'v')
same(mc.touch('t', 100), true)
same(mc.touch('absent', 100), nil)
same(mc.gat('t', 100), 'v')
same(mc.gat('absent', 100), nil)
same(mc.gat('t', 1), 'v')
mc.incr('short', 1, 1, 1)
mc.set('shorter', 'v', 1)
finish = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 10
until mc.get_multi('t', 'short', 'shorter').empty?
  raise 'a second is not over after 10 s' if Process.clock_gettime(Process::CLOCK_MONOTONIC) > finish

  sleep 0.05
end
same(mc.touch('t', 100), nil)
same(mc.add('t', 'v', Time.now.to_i + 1000).is_a?(Integer), true)
same(mc.get('t'), 'v', 'a time in the future')

# delete.
mc.set('d', 'v')
same(mc.delete('d'), true)
same(mc.delete('d'), nil)

# Large values.
mc.set('large', LARGE, 0, raw: true)
same(mc.get('large') == LARGE, true, '900 KB, byte for byte')
same(mc.append('large', 'tail'), true)
same(mc.get('large') == "#{LARGE}tail".b, true)
refused(Dalli::DalliError, 'Response error 3: Value too large') { mc.set('large', TOO_LARGE) }
same(mc.get('large'), nil, 'a refused set leaves no old value')
mc.set('after', 'v')
same(mc.get('after'), 'v')

# Keys. The client puts a digest into one that is too long.
mc.set('k' * 250, 'v')
same(mc.get_multi('k' * 250, 'after'), { 'k' * 250 => 'v', 'after' => 'v' })
mc.set('k' * 1000, 'digest')
same(mc.get('k' * 1000), 'digest')
same(mc.get('k' * 250), 'v')
mc.set("key with\n\0".b, 'v')
same(mc.get("key with\n\0".b), 'v')
prefixed = client(namespace: 'space')
prefixed.set('after', 'other')
same(prefixed.get_multi('after'), { 'after' => 'other' })
same(mc.get('space:after'), 'other')

# What the client keeps in the flags.
[7, -7, 1.5, true, 'text', '', :symbol, { 'a' => [1, nil] }].each_with_index do |thing, number|
  mc.set("typed:#{number}", thing)
  same(mc.get("typed:#{number}"), thing)
end
squeezing = client(compress: true)
squeezing.set('squeezed', 'long ' * 10_000)
same(squeezing.get('squeezed'), 'long ' * 10_000)
same(mc.get('squeezed'), 'long ' * 10_000)

# stats, version, flush.
same(mc.stats[SERVER]['pid'].to_i.positive?, true, 'stats')
same(mc.stats(:settings)[SERVER]['item_size_max'], (1 << 20).to_s)
same(mc.stats(:items)[SERVER].keys.all? { |key| key.start_with?('items:') }, true)
same(mc.version[SERVER].count('.'), 2)
same(mc.reset_stats, [true])
same(mc.flush, [true])
same(mc.get('after'), nil)
mc.set('after', 'flush')
same(mc.get('after'), 'flush', 'a store in the same second as flush lives')
mc.close
same(mc.get('after'), 'flush', 'connects again')

puts "ok dalli #{Dalli::VERSION}#{', TLS' if TLS} (#{$count} checks)"
