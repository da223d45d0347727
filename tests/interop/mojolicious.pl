# Talks to an echo server with Mojolicious: sends each line of its input as a message, and prints what comes back.
#
# perl mojolicious.pl URL

use Mojo::Base -strict, -signatures;
use Mojo::IOLoop;
use Mojo::UserAgent;

chomp(my @messages = <STDIN>);
my $agent = Mojo::UserAgent->new;
my $start = $agent->build_websocket_tx($ARGV[0]);
$start->req->headers->sec_websocket_extensions('permessage-deflate');
$agent->start($start => sub ($agent, $tx) {
  die "no connection\n" unless $tx->is_websocket;
  say $tx->res->headers->sec_websocket_extensions;
  $tx->on(text => sub ($tx, $message) {
    say $message;
    @messages ? $tx->send({text => shift @messages}) : $tx->finish(1000);
  });
  $tx->on(finish => sub ($tx, $code, $reason = undef) { say $code; Mojo::IOLoop->stop });
  $tx->send({text => shift @messages});
});
Mojo::IOLoop->start;
