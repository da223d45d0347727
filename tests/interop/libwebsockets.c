/* Receives messages with libwebsockets and prints each of them on a line, until the server closes the connection.
 *
 * libwebsockets PORT OFFER */

#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 100 }; /* lines, for some versions deliver a message for ever */

static int lines, ended;

static int callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size)
{
    switch (reason) {
    case LWS_CALLBACK_CLIENT_RECEIVE:
        printf("%.*s%s", (int)size, (const char *)in, lws_is_final_fragment(wsi) ? "\n" : "");
        ended = ++lines == MOST;
        break;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
    case LWS_CALLBACK_CLIENT_CLOSED:
        ended = 1;
        break;
    default:
        break;
    }
    return ended ? -1 : 0;
}

int main(int count, char **arguments)
{
    struct lws_protocols protocols[] = {{"", callback, 0, 65536}, {0}};
    struct lws_extension extensions[] = {{"permessage-deflate", lws_extension_callback_pm_deflate, NULL}, {0}};
    struct lws_context_creation_info settings;
    struct lws_client_connect_info target;
    struct lws_context *context;

    if (count != 3)
        return 2;
    extensions[0].client_offer = arguments[2];
    lws_set_log_level(LLL_ERR, NULL);
    memset(&settings, 0, sizeof settings);
    settings.port = CONTEXT_PORT_NO_LISTEN;
    settings.protocols = protocols;
    settings.extensions = extensions;
    settings.gid = settings.uid = -1;
    context = lws_create_context(&settings);
    memset(&target, 0, sizeof target);
    target.context = context;
    target.address = target.host = "localhost";
    target.port = atoi(arguments[1]);
    target.path = "/sizes";
    target.ietf_version_or_minus_one = -1;
    lws_client_connect_via_info(&target);
    while (!ended && lws_service(context, 0) >= 0)
        ;
    lws_context_destroy(context);
    return 0;
}
